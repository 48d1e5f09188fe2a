"""ZSharp's filter against NumPy's quantile."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import data_mesh

import forgetsam as fs

SHAPES = [(1, 1), (2, 3), (7, 5, 3), (40, 50)]


def expected(g: np.ndarray, percentile: float) -> np.ndarray:
  z = np.abs(g - g.mean(dtype=g.dtype))
  return np.where(z > np.quantile(z, percentile), g, 0)


def filtered(g: np.ndarray, percentile: float) -> np.ndarray:
  transform = fs.z_score_filter(percentile)
  kept, _ = jax.jit(transform.update)(g, transform.init(g))
  return np.asarray(kept)


@pytest.mark.parametrize("percentile", [0, 0.3, 0.5, 0.95, 1])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_is_above_numpys_quantile_is_kept(shape, percentile):
  # Multiples of 1/8 around 0 have exact means, so that no rounding decides.
  g = np.random.default_rng(3).integers(-40, 40, shape)
  g = (g - np.round(g.mean())).astype(np.float32) / 8
  g.flat[0] -= g.sum()
  np.testing.assert_array_equal(
    filtered(g, percentile), expected(g, percentile)
  )


@pytest.mark.parametrize("scale", [1e-35, 1.0, 1e30])
def test_so_many_are_kept_at_any_scale(scale):
  g = np.random.default_rng(0).normal(size=(30, 40)).astype(np.float32)
  assert np.count_nonzero(filtered(g * np.float32(scale), 0.95)) == 60


def test_equal_scores_are_all_dropped_or_all_kept():
  equal = np.ones((4, 4), np.float32)
  np.testing.assert_array_equal(filtered(equal, 0.5), np.zeros_like(equal))
  two = np.repeat(np.float32([[0, 0, 0, 4]]), 4, axis=0)
  np.testing.assert_array_equal(filtered(two, 0.5), two)


def test_an_empty_array_stays_empty():
  assert filtered(np.zeros((0, 3), np.float32), 0.5).shape == (0, 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays(bad):
  g = np.float32([[1, bad], [2, 3]])
  assert not np.all(np.isfinite(filtered(g, 0.5)))


def test_a_size_that_float32_rounds_up_keeps_the_percentile():
  g = np.zeros((2, 2**23 + 2), np.float32)  # 2**24 + 3 rounds to 2**24 + 4
  g[0, 0] = 1
  assert np.count_nonzero(filtered(g, 1.0)) == 0


def test_the_percentile_may_be_traced():
  g = jnp.array([[3.0, 0.1], [0.2, -4.0]])

  def kept(percentile):
    transform = fs.z_score_filter(percentile)
    return transform.update(g, transform.init(g))[0]

  np.testing.assert_array_equal(
    jax.vmap(kept)(jnp.array([0.5, 1.0])), [[[3, 0], [0, -4]], np.zeros((2, 2))]
  )


def test_devices_change_nothing():
  """Each device looks at its own micro-batches' gradients, in the loop."""

  def forward(params, model_state, images, *, train, key):
    return images @ params, model_state

  draws = np.random.default_rng(0)
  images = draws.normal(size=(8, 12)).astype(np.float32)
  batch = {"image": images, "label": draws.integers(0, 5, 8)}
  params = jnp.asarray(draws.normal(size=(12, 5)), jnp.float32)
  results = []
  for devices in (1, 4):
    mesh = data_mesh(devices)
    perturb = fs.perturbed_gradient(fs.zsharp(0.3, 0.7))
    optimizer = fs.sgdw(0.1)
    step = fs.make_train_step(
      forward,
      loss=fs.softmax_cross_entropy(),
      optimizer=optimizer,
      perturb=perturb,
      micro_batch_size=2,
      mesh=mesh,
    )
    state = fs.create_train_state(params, {}, optimizer, perturb, mesh)
    results.append(step(state, batch, jax.random.key(0))[0].params)
  assert np.max(np.abs(results[0] - params)) > 0.01
  np.testing.assert_allclose(*results, rtol=1e-5)
