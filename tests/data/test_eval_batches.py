"""Evaluation counts every example exactly once."""

import numpy as np
import pytest

from forgetsam import data


@pytest.mark.parametrize("batch_size", [1, 4, 5, 12, 24, 23, 100])
def test_every_example_once_and_in_order(numbered_split, batch_size):
  split = numbered_split(24)
  batches = list(
    data.eval_batches(split, batch_size=batch_size, mean=0.5, std=0.25)
  )
  assert len(batches) == -(-24 // batch_size)
  for batch in batches:
    assert {key: value.shape[0] for key, value in batch.items()} == {
      "image": batch_size,
      "label": batch_size,
      "mask": batch_size,
    }
    assert batch["image"].dtype == batch["mask"].dtype == np.float32
    assert batch["label"].dtype == np.int32
  images, labels, mask = (
    np.concatenate([batch[key] for batch in batches])
    for key in ("image", "label", "mask")
  )
  np.testing.assert_array_equal(mask, np.arange(len(mask)) < 24)
  np.testing.assert_array_equal(labels[:24], np.arange(24))
  np.testing.assert_allclose(
    images[:24], (split.images / 255 - 0.5) / 0.25, rtol=1e-6, atol=1e-6
  )
  assert not images[24:].any()
  assert not labels[24:].any()


def test_channels_have_their_own_statistics(numbered_split):
  split = numbered_split(3)
  [batch] = data.eval_batches(
    split, batch_size=3, mean=(0.1, 0.9), std=(0.5, 2)
  )
  np.testing.assert_allclose(
    batch["image"],
    (split.images / 255 - (0.1, 0.9)) / (0.5, 2),
    rtol=1e-5,
    atol=1e-6,
  )


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"batch_size": 0}, "batch_size=0"),
    ({"mean": (0.0, 0.0, 0.0)}, "mean=.* 2 channels"),
    ({"std": -1.0}, "std=-1.0 must be positive"),
  ],
)
def test_impossible_arguments(numbered_split, options, message):
  defaults = {"batch_size": 2, "mean": 0.0, "std": 1.0}
  # Refused at the call, not at the first batch.
  with pytest.raises(ValueError, match=message):
    data.eval_batches(numbered_split(3), **(defaults | options))
