"""Mixture bounds: closed forms, an integral, a loop and a slow jackknife."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import slow_jackknife as slow

from forgetsam.forgetting import (
  feature_scale,
  representation_forgetting,
  representation_information,
)

BOUNDS = jax.jit(representation_information, static_argnames="num_classes")
FORGETTING = jax.jit(representation_forgetting, static_argnames="num_classes")
LABELS = np.repeat([0, 1, 2], [4, 7, 3])


def draw_features(seed=0):
  rng = np.random.default_rng(seed)
  return rng.normal(size=(len(LABELS), 5)) + 10 * LABELS[:, None]


def bounds(features, labels, noise_std, num_classes=3):
  return BOUNDS(
    jnp.asarray(features, jnp.float32),
    jnp.asarray(labels),
    noise_std,
    num_classes=num_classes,
  )


def loop(features, labels, scale):
  """B(scale) by its definition, as a statistic of kept, weighted examples."""

  def statistic(kept, weights):
    total = 0.0
    for c in np.unique(labels):
      mine = labels[kept] == c
      h, share = features[kept][mine], weights[mine].sum()
      for one in h:
        squares = np.sum((h - one) ** 2, axis=1)
        kernel = np.mean(np.exp(-squares / (2 * scale**2)))
        total -= share / len(h) * np.log(kernel)
    return total

  return statistic


@pytest.mark.parametrize("noise_std", [0.4, 1.5])
def test_against_loops_that_delete_and_recompute(noise_std):
  features = draw_features()
  found = bounds(features, LABELS, noise_std)
  for estimate, scale in (
    (found.lower, 2 * noise_std),
    (found.upper, noise_std),
  ):
    whole, _, error = slow.stratified(loop(features, LABELS, scale), LABELS)
    np.testing.assert_allclose(estimate.value, whole, rtol=1e-4)
    np.testing.assert_allclose(
      estimate.standard_error, error, rtol=1e-3, atol=1e-6
    )
  assert found.lower.value < found.upper.value < found.ceiling


def test_far_apart_both_bounds_are_the_ceiling():
  found = bounds(1000 * draw_features(), LABELS, 1.0)
  ceiling = np.mean(np.log(np.repeat([4, 7, 3], [4, 7, 3])))
  for value in (found.lower.value, found.upper.value, found.ceiling):
    np.testing.assert_allclose(value, ceiling, rtol=1e-6)


def test_one_point_per_class_exposes_nothing():
  """Also far from the origin, where an expanded square loses its digits."""
  features = 1e4 * np.stack([LABELS + 1.0, LABELS], axis=1)
  found = bounds(features, LABELS, 0.1)
  np.testing.assert_allclose(found.lower.value, 0, atol=1e-5)
  np.testing.assert_allclose(found.upper.value, 0, atol=1e-5)


@pytest.mark.parametrize("distance", [0.5, 2.0, 4.0])
def test_the_information_of_two_points_lies_between(distance):
  found = bounds([[0.0], [distance]], [0, 0], 1.0, num_classes=1)
  for estimate, scale in ((found.lower, 2.0), (found.upper, 1.0)):
    kernel = np.exp(-(distance**2) / (2 * scale**2))
    np.testing.assert_allclose(
      estimate.value, -np.log((1 + kernel) / 2), rtol=1e-5
    )
  z = np.linspace(-12, 12 + distance, 20_001)
  density = (scipy.stats.norm.pdf(z) + scipy.stats.norm.pdf(z - distance)) / 2
  # Far out the density underflows, and adds nothing.
  inside = -density * np.log(np.maximum(density, 1e-300))
  entropy = np.sum(inside) * (z[1] - z[0])
  information = entropy - scipy.stats.norm.entropy()
  assert found.lower.value < information < found.upper.value


def test_of_a_gaussian_population():
  r"""E log E' exp(-(x - x')^2 / 2 s^2) is known where x and x' are normal."""
  rng = np.random.default_rng(0)
  spread, noise = 2.0, 1.0
  n = 1000
  features = rng.normal(scale=spread, size=(n, 1))
  found = bounds(features, np.zeros(n, int), noise, num_classes=1)
  for estimate, s in ((found.lower, 2 * noise), (found.upper, noise)):
    expected = 0.5 * np.log1p(spread**2 / s**2)
    expected += spread**2 / (2 * (s**2 + spread**2))
    # The probe's bias, of order 1/n, is well inside its error.
    assert abs(estimate.value - expected) < 3 * estimate.standard_error
    assert estimate.standard_error < 0.03
  # Between them, the information of the Gaussian channel.
  channel = 0.5 * np.log1p(spread**2 / noise**2)
  assert found.lower.value < channel < found.upper.value


def test_errors_are_calibrated():
  rng = np.random.default_rng(1)
  features = rng.normal(size=(500, 60, 1)).astype(np.float32)
  run = functools.partial(
    representation_information, noise_std=0.5, num_classes=2
  )
  labels = jnp.repeat(jnp.arange(2), 30)
  found = jax.jit(jax.vmap(run, in_axes=(0, None)))(features, labels)
  for estimate in found[:2]:
    claimed = np.sqrt(np.mean(np.square(estimate.standard_error)))
    np.testing.assert_allclose(claimed, np.std(estimate.value), rtol=0.15)


def test_moving_a_class_as_a_whole_changes_nothing():
  features = draw_features()
  moved = features + np.array([0.0, 3000.0, -800.0])[LABELS][:, None]
  one, two = bounds(features, LABELS, 1.0), bounds(moved, LABELS, 1.0)
  np.testing.assert_allclose(one.upper.value, two.upper.value, rtol=1e-3)


def forget(before, after, noise_std=1.0):
  return FORGETTING(
    jnp.asarray(before, jnp.float32),
    jnp.asarray(after, jnp.float32),
    jnp.asarray(LABELS),
    noise_std,
    num_classes=3,
  )


def test_forgetting_is_before_minus_after_with_paired_errors():
  before = draw_features()
  after = before + 0.2 * draw_features(1)
  report = forget(before, after)
  for estimate, scale in ((report.lower, 2.0), (report.upper, 1.0)):
    one, two = loop(before, LABELS, scale), loop(after, LABELS, scale)
    whole, _, error = slow.stratified(
      lambda kept, w, a=one, b=two: a(kept, w) - b(kept, w), LABELS
    )
    np.testing.assert_allclose(estimate.value, whole, rtol=2e-3, atol=1e-5)
    np.testing.assert_allclose(estimate.standard_error, error, rtol=2e-3)
  np.testing.assert_allclose(
    report.lower.value,
    report.before.lower.value - report.after.lower.value,
    rtol=1e-4,
  )


def test_shrinking_is_no_forgetting_once_rescaled():
  """The control without which a smaller layer would seem to forget."""
  before = draw_features()
  report = forget(before, 0.25 * before)
  assert report.lower.value > 0.2
  np.testing.assert_allclose(report.scale, 0.25, rtol=1e-5)
  np.testing.assert_allclose(report.rescaled_lower.value, 0, atol=1e-5)
  np.testing.assert_allclose(report.rescaled_upper.value, 0, atol=1e-5)


def test_a_lost_direction_is_forgotten_at_any_scale():
  before = 2 * draw_features()
  after = before * np.array([1.0, 0, 0, 0, 0])
  report = forget(before, after)
  assert report.rescaled_lower.value > 0.05
  assert report.lower.value > report.rescaled_lower.value


def test_features_that_collapse_lose_all():
  before = draw_features()
  report = forget(before, np.zeros_like(before))
  assert report.scale == 0
  for estimate, start in (
    (report.rescaled_lower, report.before.lower),
    (report.lower, report.before.lower),
  ):
    np.testing.assert_allclose(estimate.value, start.value, rtol=1e-6)


def test_features_that_are_not_finite_are_not_hidden():
  features = draw_features()
  features[3, 1] = np.nan
  assert np.isnan(bounds(features, LABELS, 1.0).upper.value)


def test_a_single_example_of_a_class_has_no_error():
  found = bounds(draw_features()[:5], [0, 0, 0, 0, 1], 1.0)
  assert np.isfinite(found.upper.value)
  assert np.isnan(found.upper.standard_error)


def test_feature_scale_is_the_spread_within_classes():
  features = draw_features()
  centred = np.concatenate(
    [features[c == LABELS] - features[c == LABELS].mean(0) for c in range(3)]
  )
  found = feature_scale(
    jnp.asarray(features, jnp.float32), jnp.asarray(LABELS), num_classes=3
  )
  np.testing.assert_allclose(found, np.sqrt(np.mean(centred**2)), rtol=1e-5)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan")])
def test_impossible_noise_is_refused(bad):
  features, labels = jnp.ones((2, 1)), jnp.zeros(2, int)
  with pytest.raises(ValueError, match=f"noise_std={bad} must be above 0"):
    representation_information(features, labels, bad, num_classes=1)
  with pytest.raises(ValueError, match=f"noise_std={bad} must be above 0"):
    representation_forgetting(features, features, labels, bad, num_classes=1)
