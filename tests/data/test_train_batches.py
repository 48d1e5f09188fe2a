"""Training batches depend on (split, seed, step) and on nothing else.

The images' labels are their positions, so that a batch says what is in it.
"""

import itertools

import numpy as np
import pytest

from forgetsam import data

N, B, STEPS = 23, 5, 5  # an epoch's last batch wraps by two examples


def batches(split, num_steps, **options):
  defaults = {"batch_size": B, "seed": 3, "mean": 0.0, "std": 1.0}
  return list(
    data.train_batches(split, num_steps=num_steps, **(defaults | options))
  )


def labels(steps):
  return np.concatenate([batch["label"] for batch in steps])


def assert_same(left, right):
  assert len(left) == len(right)
  for a, b in zip(left, right, strict=True):
    np.testing.assert_array_equal(a["label"], b["label"])
    np.testing.assert_array_equal(a["image"], b["image"])


@pytest.mark.parametrize(
  ("count", "batch", "steps"), [(23, 5, 5), (20, 5, 4), (5, 5, 1), (6, 5, 2)]
)
def test_steps_per_epoch(count, batch, steps):
  assert data.steps_per_epoch(count, batch) == steps


def test_an_epoch_wraps_into_its_own_start(numbered_split):
  order = labels(batches(numbered_split(N), 3 * STEPS)).reshape(3, -1)
  for epoch in order:
    np.testing.assert_array_equal(np.sort(epoch[:N]), np.arange(N))
    np.testing.assert_array_equal(epoch[N:], epoch[: STEPS * B - N])
  assert len({tuple(epoch) for epoch in order}) == 3
  assert not np.any(np.all(order == np.sort(order, 1), 1))


def test_a_divisible_epoch_wraps_nothing(numbered_split):
  order = labels(batches(numbered_split(20), 8)).reshape(2, 20)
  np.testing.assert_array_equal(np.sort(order, 1), [np.arange(20)] * 2)


def test_orders_are_uniform(numbered_split):
  first = labels(batches(numbered_split(4), 2000, batch_size=4))[::4]
  # 500 each; the standard deviation is 19.
  assert np.all(np.abs(np.bincount(first) - 500) < 80)


def test_seeds_give_other_orders(numbered_split):
  split = numbered_split(N)
  one, other = (labels(batches(split, STEPS, seed=s)) for s in (3, 4))
  assert np.any(one != other)


# Another order under a new TensorFlow would break every resumed run.
def test_order_is_fixed(numbered_split):
  np.testing.assert_array_equal(
    labels(batches(numbered_split(10), 2)), [3, 7, 9, 4, 6, 2, 8, 5, 1, 0]
  )


@pytest.mark.parametrize("start", [0, 1, 4, 5, 7, 13])
def test_resumed_batches_are_the_same_bit_for_bit(numbered_split, start):
  split = numbered_split(N)
  options = {"flip": True, "crop_padding": 2}
  through = batches(split, 15, **options)
  resumed = batches(split, 15 - start, start_step=start, **options)
  assert_same(resumed, through[start:])


def test_never_ends_by_default(numbered_split):
  endless = data.train_batches(
    numbered_split(N), batch_size=B, seed=3, mean=0.0, std=1.0
  )
  taken = list(itertools.islice(endless, 2 * STEPS + 1))
  assert_same(taken, batches(numbered_split(N), 2 * STEPS + 1))


def test_normalisation(numbered_split):
  split = numbered_split(N)
  mean, std = (0.25, 0.5), (0.5, 2.0)
  [batch] = batches(split, 1, mean=mean, std=std)
  assert batch["image"].dtype == np.float32
  assert batch["label"].dtype == np.int32
  expected = (split.images[batch["label"]] / 255 - mean) / std
  np.testing.assert_allclose(batch["image"], expected, rtol=1e-6, atol=1e-7)
  # Evaluation must see the very same numbers.
  [full] = data.eval_batches(split, batch_size=N, mean=mean, std=std)
  np.testing.assert_array_equal(batch["image"], full["image"][batch["label"]])


@pytest.mark.parametrize("count", [2, 3, 6])
def test_shards_concatenate_to_the_batch(numbered_split, count):
  split = numbered_split(N)
  options = {"batch_size": 6, "flip": True, "crop_padding": 1, "start_step": 2}
  whole = batches(split, 7, **options)
  shards = [
    batches(split, 7, shard=(index, count), **options) for index in range(count)
  ]
  joined = [
    {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    for parts in zip(*shards, strict=True)
  ]
  assert_same(joined, whole)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"batch_size": 24}, "batch_size=24 .* 23"),
    ({"batch_size": 0}, "batch_size=0"),
    ({"start_step": -1}, "start_step=-1"),
    ({"crop_padding": -1}, "crop_padding=-1"),
    ({"seed": -1}, "seed=-1"),
    ({"shard": (2, 2), "batch_size": 4}, "shard="),
    ({"shard": (0, 2)}, "count must divide batch_size=5"),
    ({"mean": (0.1, 0.2, 0.3)}, "mean=.* 2 channels"),
    ({"mean": float("nan")}, "mean=nan must be finite"),
    ({"std": (1.0, 0.0)}, "std=.* must be positive"),
  ],
)
def test_impossible_arguments(numbered_split, options, message):
  with pytest.raises(ValueError, match=message):
    batches(numbered_split(N), 1, **options)


def test_negative_number_of_steps(numbered_split):
  with pytest.raises(ValueError, match="num_steps=-1"):
    batches(numbered_split(N), -1)
