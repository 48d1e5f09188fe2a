"""Logits, confidence, calibration and prior bias, against plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from strict import strict_jax

from forgetsam.forgetting import output_shift, probe_indices

SHIFT = jax.jit(output_shift, static_argnames="bins")
LABELS = np.repeat([0, 1, 2], [10, 14, 6])


def logits(seed):
  rng = np.random.default_rng(seed)
  z = rng.normal(size=(len(LABELS), 3)) + 1.5 * np.eye(3)[LABELS]
  return z.astype(np.float32)


def softmax(z):
  p = np.exp(z - z.max(axis=1, keepdims=True))
  return p / p.sum(axis=1, keepdims=True)


def stratified_error(x):
  """The error of a mean whose class proportions are fixed."""
  total = 0.0
  for c in np.unique(LABELS):
    mine = x[c == LABELS]
    total += (len(mine) / len(x)) ** 2 * mine.var(ddof=1) / len(mine)
  return np.sqrt(total)


def assert_estimate(estimate, x):
  np.testing.assert_allclose(estimate.value, x.mean(), rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(
    estimate.standard_error, stratified_error(x), rtol=1e-3
  )


def calibration_error(z, bins):
  p = softmax(z)
  confidence, right = p.max(axis=1), p.argmax(axis=1) == LABELS
  total = 0.0
  for b in range(bins):
    inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
    if inside.any():
      gap = abs(right[inside].mean() - confidence[inside].mean())
      total += inside.mean() * gap
  return total


def test_means_and_their_errors():
  before, after = logits(0), logits(1)
  shift = SHIFT(before, after, LABELS)
  rows = np.arange(len(LABELS))
  for found, z in ((shift.before, before), (shift.after, after)):
    target = z[rows, LABELS]
    assert_estimate(found.target_logit, target)
    assert_estimate(found.non_target_logit, (z.sum(axis=1) - target) / 2)
    assert_estimate(found.confidence, softmax(z).max(axis=1))
    assert_estimate(found.accuracy, (z.argmax(axis=1) == LABELS) * 1.0)


def test_changes_are_paired_and_after_minus_before():
  before, after = logits(0), 0.5 * logits(0)
  change = SHIFT(before, after, LABELS).change
  target = before[np.arange(len(LABELS)), LABELS]
  assert_estimate(change.target_logit, -0.5 * target)
  assert_estimate(
    change.confidence,
    softmax(after).max(axis=1) - softmax(before).max(axis=1),
  )
  np.testing.assert_allclose(change.accuracy.value, 0, atol=1e-7)
  assert change.accuracy.standard_error == 0


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_calibration_error_against_a_loop_over_bins(bins):
  found = SHIFT(logits(0), logits(1), LABELS, bins=bins).before
  np.testing.assert_allclose(
    found.calibration_error.value, calibration_error(logits(0), bins), rtol=1e-4
  )


def test_confident_and_wrong_is_badly_calibrated():
  wrong = 50 * np.eye(3, dtype=np.float32)[(LABELS + 1) % 3]
  right = 50 * np.eye(3, dtype=np.float32)[LABELS]
  shift = SHIFT(right, wrong, LABELS)
  np.testing.assert_allclose(shift.before.calibration_error.value, 0, atol=1e-6)
  np.testing.assert_allclose(shift.after.calibration_error.value, 1, rtol=1e-6)
  np.testing.assert_allclose(shift.before.class_prior_bias.value, 0, atol=1e-6)


def test_class_prior_bias_is_kl_of_the_mean_prediction_to_the_labels():
  found = SHIFT(logits(0), logits(1), LABELS).before.class_prior_bias
  p, prior = softmax(logits(0)), np.bincount(LABELS) / len(LABELS)
  mean = p.mean(axis=0)
  np.testing.assert_allclose(
    found.value, scipy.stats.entropy(mean, prior), rtol=1e-4
  )
  np.testing.assert_allclose(
    found.standard_error, stratified_error(p @ np.log(mean / prior)), rtol=1e-3
  )
  # Certain of class 1 everywhere: -log of its share.
  certain = np.tile([-90.0, 90.0, -90.0], (30, 1)).astype(np.float32)
  found = SHIFT(certain, certain, LABELS).before.class_prior_bias
  np.testing.assert_allclose(found.value, np.log(30 / 14), rtol=1e-5)


def test_a_prior_without_a_class_is_infinitely_far():
  labels = np.zeros(30, int)
  assert np.isinf(SHIFT(logits(0), logits(0), labels).before[-1].value)


def test_a_single_example_of_a_class_has_no_error():
  labels = np.array([0] * 29 + [1])
  found = SHIFT(logits(0), logits(0), labels).before.target_logit
  assert np.isfinite(found.value)
  assert np.isnan(found.standard_error)


def test_a_constant_moves_the_logits_alone():
  shift = SHIFT(logits(0), logits(0) + 3, LABELS).change
  np.testing.assert_allclose(shift.target_logit.value, 3, rtol=1e-5)
  np.testing.assert_allclose(shift.non_target_logit.value, 3, rtol=1e-5)
  for estimate in shift[2:]:
    np.testing.assert_allclose(estimate.value, 0, atol=1e-6)


def test_impossible_bins_are_refused():
  with pytest.raises(ValueError, match=r"bins=0 .* at least 1"):
    output_shift(jnp.zeros((2, 2)), jnp.zeros((2, 2)), jnp.arange(2), bins=0)


def test_where_jax_stops_at_nan_and_at_promotion():
  with strict_jax():
    shift = output_shift(logits(0), logits(1), LABELS, bins=5)
  assert all(np.isfinite(x) for x in jax.tree.leaves(shift))


@pytest.mark.parametrize(
  ("labels", "message"),
  [
    (np.zeros((4, 1), int), r"labels of shape \(4, 1\).*say labels\[:, 0\]"),
    (np.zeros(4), r"labels.* float64 .*integers"),
    (np.zeros(4, bool), r"labels.* bool .*integers"),
  ],
)
def test_labels_that_are_no_indices_are_refused(labels, message):
  with pytest.raises(ValueError, match=message):
    output_shift(np.zeros((4, 2)), np.zeros((4, 2)), labels)
  with pytest.raises(ValueError, match=message):
    probe_indices(labels, 2, jax.random.key(0))
