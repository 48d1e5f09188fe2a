"""Mean effects over micro-batches, and output forgetting on probes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import forgetsam as fs
from forgetsam.forgetting import (
  add_offset,
  effect_over_repeats,
  offset_fn,
  output_forgetting,
  probe_forgetting,
)

KEY = jax.random.key(3)
TRACES = []
FORGETTING = jax.jit(output_forgetting)


def logits_fn(w, x):
  TRACES.append(1)
  return x @ w


def examples(seed, n):
  key = jax.random.key(seed)
  labels = jnp.arange(n) % 3
  noise = jax.random.normal(key, (n, 4))
  return noise + 2 * jax.nn.one_hot(labels, 4), labels


TRAIN, PROBE = examples(0, 30), examples(1, 24)
W = 0.7 * jnp.eye(4, 3)
SAM = offset_fn(
  logits_fn, fs.loss_ascent(fs.softmax_cross_entropy()), fs.sam(0.5)
)


def mean_image_delta(w, images, labels, *, micro_batch=0):
  """An offset whose effects are linear in the micro-batch."""
  return jnp.zeros_like(w).at[:, 0].set(jnp.mean(images, axis=0))


def first_column(params, perturbed, context):
  return {"moved": (perturbed - params)[:, 0] * context}


def test_mean_and_error_of_a_linear_effect():
  """With m = n, every micro-batch is the whole set."""
  whole = effect_over_repeats(
    first_column, mean_image_delta, W, TRAIN, 2.0, m=30, repeats=3, key=KEY
  )["moved"]
  np.testing.assert_allclose(whole.value, 2 * TRAIN[0].mean(axis=0), rtol=1e-4)
  np.testing.assert_allclose(whole.standard_error, 0, atol=1e-5)
  one = effect_over_repeats(
    first_column, mean_image_delta, W, TRAIN, 1.0, m=1, repeats=300, key=KEY
  )["moved"]
  spread = np.std(TRAIN[0], axis=0) / np.sqrt(300)
  np.testing.assert_allclose(one.standard_error, spread, rtol=0.15)
  assert np.all(np.abs(one.value - TRAIN[0].mean(axis=0)) < 4 * spread)


def test_a_single_repeat_has_no_error():
  one = effect_over_repeats(
    first_column, mean_image_delta, W, TRAIN, 1.0, m=5, repeats=1, key=KEY
  )["moved"]
  assert np.all(np.isfinite(one.value))
  assert np.all(np.isnan(one.standard_error))


def test_repeats_see_their_index_as_the_micro_batch():
  def delta_fn(w, images, labels, *, micro_batch):
    return jnp.full_like(w, micro_batch)

  found = effect_over_repeats(
    first_column, delta_fn, jnp.zeros((4, 3)), TRAIN, 1.0, m=5, repeats=5,
    key=KEY,
  )["moved"]  # fmt: skip
  np.testing.assert_allclose(found.value, 2.0, rtol=1e-6)


def on_probes(**options):
  defaults = {"m": 30, "repeats": 3, "key": KEY}
  return probe_forgetting(
    logits_fn,
    SAM,
    W,
    TRAIN,
    {"train": TRAIN, "test": PROBE},
    **(defaults | options),
  )


def test_one_whole_batch_is_output_forgetting():
  """With m = n nothing varies but the probe's examples."""
  report = on_probes()
  moved = add_offset(W, SAM(W, *TRAIN))
  for name, (x, y) in (("train", TRAIN), ("test", PROBE)):
    expected = FORGETTING(x @ W, x @ moved, y)
    found = report[name]
    for one, two, three, start in zip(
      found.forgotten_over_probe, expected.forgotten, found.forgotten,
      found.before, strict=True,
    ):  # fmt: skip
      np.testing.assert_allclose(one.bias_bound, two.bias_bound)
      np.testing.assert_allclose(start.bias_bound, two.bias_bound)
      for a, b, c in zip(one[:3], two[:3], three[:3], strict=True):
        np.testing.assert_allclose(a.value, b.value, rtol=1e-3)
        np.testing.assert_allclose(
          a.standard_error, b.standard_error, rtol=1e-3
        )
        np.testing.assert_array_equal(a.value, c.value)
        np.testing.assert_allclose(c.standard_error, 0, atol=1e-6)
    np.testing.assert_allclose(
      found.before.conditional.jackknife.value,
      expected.before.conditional.jackknife.value,
      rtol=1e-5,
    )


def test_values_are_means_over_micro_batches():
  """The same draws, one at a time, by the public pieces."""
  report = on_probes(m=4, repeats=3)["test"].forgotten
  values = []

  def forgetting(params, perturbed, context):
    x, y = context
    report = output_forgetting(x @ params, x @ perturbed, y).forgotten
    return report.conditional.variance.value

  mean = effect_over_repeats(
    forgetting, SAM, W, TRAIN, PROBE, m=4, repeats=3, key=KEY
  )
  values = report.conditional.variance
  np.testing.assert_allclose(values.value, mean.value, rtol=1e-4)
  np.testing.assert_allclose(
    values.standard_error, mean.standard_error, rtol=1e-3
  )
  assert values.standard_error > 0


def test_the_batch_size_does_not_matter():
  one, two = on_probes(m=4), on_probes(m=4, batch_size=7)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-6),
    one,
    two,
  )


def test_networks_share_one_program():
  on_probes(m=4)
  before = len(TRACES)
  probe_forgetting(
    logits_fn, SAM, 2 * W, TRAIN, {"train": TRAIN, "test": PROBE},
    m=4, repeats=7, key=jax.random.key(9),
  )  # fmt: skip
  assert len(TRACES) == before


@pytest.mark.parametrize("m", [0, 31])
def test_impossible_micro_batches_are_refused(m):
  with pytest.raises(ValueError, match=f"m={m} must be at least 1 and at most"):
    on_probes(m=m)


def test_no_repeats_are_refused():
  with pytest.raises(ValueError, match=r"repeats=0 .* at least 1"):
    on_probes(repeats=0)
