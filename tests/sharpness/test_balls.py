import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from meshes import data_mesh
from sharpness.problems import (
  IMAGES,
  LABELS,
  PARAMS,
  STATE,
  batches_of,
  draw,
  forward,
  matrix,
  quadratic,
)

import forgetsam as fs
from forgetsam.sharpness import (
  average_sharpness,
  dataset_loss,
  m_sharpness,
  worst_case_sharpness,
)

SOFTMAX = fs.softmax_cross_entropy()
KEY = jax.random.key(0)
A = matrix([*np.linspace(-1, 3, 11), 6.0])
W = draw(1, 12)
# Where the gradient A W + b is zero, and elsewhere.
AT_MINIMUM = quadratic(A, -A @ W)
SLOPE = draw(2, 12)
LINEAR = quadratic(0 * A, SLOPE)


@pytest.mark.parametrize("adaptive", [False, True])
def test_the_average_is_the_trace(adaptive):
  """E d'Ad/2 = rho^2 tr(T A T) / 2n on the sphere, T = |w| or 1."""
  T = np.diag(np.abs(W)) if adaptive else np.eye(12)
  expected = 0.3**2 * np.trace(T @ A @ T) / 24
  tilted = quadratic(A, 10 * SLOPE - A @ W)
  found = average_sharpness(
    tilted, W, 0.3, KEY, num_samples=100, adaptive=adaptive
  )
  assert abs(found.value - expected) < 4 * found.standard_error
  # The slope is 10 times the curvature's share, and cancels in every pair.
  assert found.standard_error < 0.1 * expected


@pytest.mark.parametrize("adaptive", [False, True])
def test_the_worst_case_at_a_minimum_is_the_largest_eigenvalue(adaptive):
  T = np.diag(np.abs(W)) if adaptive else np.eye(12)
  top = np.linalg.eigvalsh(T @ np.asarray(A, np.float64) @ T)[-1]
  found = worst_case_sharpness(
    AT_MINIMUM, W, 2.0, KEY, num_steps=60, adaptive=adaptive
  )
  np.testing.assert_allclose(found.increase, 2.0**2 * top / 2, rtol=1e-4)
  relative = found.delta / np.diag(T)
  np.testing.assert_allclose(np.linalg.norm(relative), 2.0, rtol=1e-5)
  rise = AT_MINIMUM.value(W + found.delta) - AT_MINIMUM.value(W)
  np.testing.assert_allclose(found.increase, rise, rtol=1e-5)


@pytest.mark.parametrize("adaptive", [False, True])
def test_one_step_on_a_slope_is_its_length(adaptive):
  T = np.abs(W) if adaptive else np.ones(12)
  found = worst_case_sharpness(
    LINEAR, W, 0.3, KEY, num_steps=1, adaptive=adaptive
  )
  expected = 0.3 * np.linalg.norm(T * SLOPE)
  np.testing.assert_allclose(found.increase, expected, rtol=1e-4)


def test_weights_at_zero_stay_there_where_adaptive():
  w = W.at[3].set(0.0)
  found = worst_case_sharpness(LINEAR, w, 0.3, KEY, adaptive=True)
  assert found.delta[3] == 0
  assert np.all(np.isfinite(found.delta))


def test_the_best_step_is_kept_and_no_rise_is_zero():
  hill = -matrix(np.linspace(0.5, 6, 12))
  peak = quadratic(hill, -hill @ W)  # W is its maximum
  assert worst_case_sharpness(peak, W, 0.3, KEY).increase == 0
  # Up to length 0.9 and then down: SAM's own step goes too far.
  value = lambda w: jnp.sin(2 * jnp.sum((w - W) ** 2))  # noqa: E731
  ridge = LINEAR._replace(
    value=value, value_and_gradient=jax.value_and_grad(value)
  )
  one = worst_case_sharpness(ridge, W, 1.0, KEY, num_steps=1)
  np.testing.assert_allclose(one.increase, np.sin(2.0), rtol=1e-4)
  more = worst_case_sharpness(ridge, W, 1.0, KEY)
  assert 0.97 < more.increase <= 1


def test_a_loss_that_is_not_finite_is_the_worst():
  value = lambda w: jnp.where(jnp.sum((w - W) ** 2) > 0.01, jnp.nan, w.sum())  # noqa: E731
  broken = LINEAR._replace(
    value=value, value_and_gradient=jax.value_and_grad(value)
  )
  found = worst_case_sharpness(broken, W, 0.3, KEY)
  assert np.isnan(found.increase)


@jax.jit
def batch_loss(params, images, labels):
  logits = forward(params, STATE, images, train=False, key=None)[0]
  return SOFTMAX(logits, labels)


def slow_m_sharpness(size, count, rho, adaptive):
  """Micro-batch after micro-batch, without the library."""
  increases, counts = [], []
  w, unravel = ravel_pytree(PARAMS)
  scale = np.abs(w) if adaptive else np.ones_like(w)
  for start in range(0, count, size):
    rows = slice(start, min(start + size, count))
    batch = IMAGES[rows], LABELS[rows]
    g = ravel_pytree(jax.grad(batch_loss)(PARAMS, *batch))[0]
    moved = w + rho * scale**2 * g / np.linalg.norm(scale * g)
    rise = batch_loss(unravel(moved), *batch) - batch_loss(PARAMS, *batch)
    increases.append(float(rise))
    counts.append(len(batch[0]))
  return np.array(increases), np.array(counts)


@pytest.mark.parametrize(
  ("size", "count", "adaptive", "devices"),
  [(1, 24, False, None), (5, 17, True, None), (8, 24, True, 8)],
)
def test_m_sharpness_is_a_loop_over_micro_batches(
  size, count, adaptive, devices
):
  mesh = None if devices is None else data_mesh(devices)
  loss = dataset_loss(
    forward, SOFTMAX, STATE, batches_of(size, count), mesh=mesh
  )
  found = m_sharpness(loss, PARAMS, 0.2, adaptive=adaptive)
  increases, counts = slow_m_sharpness(size, count, 0.2, adaptive)
  mean = np.average(increases, weights=counts)
  np.testing.assert_allclose(found.value, mean, rtol=1e-4)
  if size == 1:
    error = np.std(increases, ddof=1) / np.sqrt(len(increases))
    np.testing.assert_allclose(found.standard_error, error, rtol=1e-4)
  assert found.standard_error > 0


def test_a_batch_of_padding_alone_does_not_count():
  empty = {"image": IMAGES[:8], "label": LABELS[:8], "mask": jnp.zeros(8)}
  padded = [*batches_of(8), empty]
  more, less = (
    m_sharpness(dataset_loss(forward, SOFTMAX, STATE, b), PARAMS, 0.2)
    for b in (padded, batches_of(8))
  )
  np.testing.assert_array_equal(more, less)


def test_smaller_micro_batches_are_sharper():
  values = [
    m_sharpness(
      dataset_loss(forward, SOFTMAX, STATE, batches_of(m)), PARAMS, 0.1
    ).value
    for m in (1, 6, 24)
  ]
  assert values[0] > values[1] > values[2] > 0


@pytest.mark.parametrize("devices", [None, 8])
def test_networks_balls_do_not_depend_on_batches_or_devices(devices):
  def run(loss):
    worst = worst_case_sharpness(loss, PARAMS, 0.2, KEY, num_steps=5)
    average = average_sharpness(loss, PARAMS, 0.2, KEY, num_samples=5)
    return [worst.increase, *average]

  mesh = None if devices is None else data_mesh(devices)
  one = run(dataset_loss(forward, SOFTMAX, STATE, batches_of(24)))
  other = dataset_loss(forward, SOFTMAX, STATE, batches_of(8), mesh=mesh)
  np.testing.assert_allclose(one, run(other), rtol=1e-4, atol=1e-6)


def test_errors():
  loss = dataset_loss(forward, SOFTMAX, STATE, batches_of(8))
  for call, message in [
    (lambda: m_sharpness(loss, PARAMS, -1.0), "rho=-1.0"),
    (lambda: average_sharpness(LINEAR, W, -1.0, KEY), "rho=-1.0"),
    (
      lambda: average_sharpness(LINEAR, W, 1.0, KEY, num_samples=1),
      "num_samples=1",
    ),
    (lambda: worst_case_sharpness(LINEAR, W, -1.0, KEY), "rho=-1.0"),
    (
      lambda: worst_case_sharpness(LINEAR, W, 1.0, KEY, num_steps=0),
      "num_steps=0",
    ),
  ]:
    with pytest.raises(ValueError, match=message):
      call()
