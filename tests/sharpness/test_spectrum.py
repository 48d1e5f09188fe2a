import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import data_mesh
from sharpness.problems import (
  PARAMS,
  STATE,
  batches_of,
  dense,
  forward,
  matrix,
  product,
)
from strict import strict_jax

import forgetsam as fs
from forgetsam.sharpness import (
  dataset_loss,
  extreme_eigenvalues,
  hutchinson_trace,
  spectral_density,
  xtrace,
)

pytestmark = pytest.mark.slow

SOFTMAX = fs.softmax_cross_entropy()
KEY = jax.random.key(0)
SPECTRUM = np.concatenate([[-2.0, 5.0, 6.0, 9.0], np.linspace(-1, 1, 56)])
A = matrix(SPECTRUM)
LIKE = jnp.zeros(60)


@pytest.mark.parametrize("jit", [False, True])
def test_eigenvalues_of_a_known_spectrum(jit):
  def run(key):
    return extreme_eigenvalues(product(A), LIKE, key, num_steps=30, top=3)

  found = (jax.jit(run) if jit else run)(KEY)
  np.testing.assert_allclose(found.largest, [9, 6, 5], rtol=1e-4)
  np.testing.assert_allclose(found.smallest, -2, rtol=1e-4)
  assert np.max(found.largest_error) < 1e-3


def test_an_eigenvalue_lies_within_the_error():
  for steps in (4, 8):
    found = extreme_eigenvalues(product(A), LIKE, KEY, num_steps=steps)
    for value, error in [
      (found.largest[0], found.largest_error[0]),
      (found.smallest, found.smallest_error),
    ]:
      assert np.min(np.abs(SPECTRUM - value)) <= error
  few = extreme_eigenvalues(product(A), LIKE, KEY, num_steps=4)
  assert few.largest_error[0] > 0.01  # four steps do not know 9


def test_where_jax_stops_at_nan_and_at_promotion():
  """Also where the Krylov space ends early."""
  diagonal = jnp.array([1.0, 1.0, 2.0, 2.0])
  with strict_jax():
    found = extreme_eigenvalues(
      product(jnp.diag(diagonal)), diagonal, KEY, num_steps=4
    )
    density = spectral_density(
      product(jnp.diag(diagonal)), diagonal, KEY, num_steps=4, num_samples=2
    )
    trace = xtrace(product(jnp.diag(diagonal)), diagonal, KEY, num_samples=2)
  np.testing.assert_allclose(found.largest, [2.0], rtol=1e-5)
  np.testing.assert_allclose(found.smallest, 1.0, rtol=1e-5)
  np.testing.assert_allclose(trace.value, 6.0, rtol=1e-4)
  assert np.isfinite(density.density).all()


@pytest.mark.parametrize(
  ("eigenvalues", "top"),
  [([0.0] * 6, [0.0]), ([3.0] * 6, [3.0]), ([0.0] * 5 + [4.0], [4.0])],
)
def test_an_exhausted_krylov_space_is_exact(eigenvalues, top):
  diagonal = jnp.array(eigenvalues)
  found = extreme_eigenvalues(lambda v: diagonal * v, diagonal, KEY)
  np.testing.assert_allclose(found.largest, top, rtol=1e-5)
  np.testing.assert_allclose(found.smallest, min(eigenvalues), atol=1e-5)


def test_eigenvalues_that_do_not_exist_are_nan():
  zero = extreme_eigenvalues(lambda v: 0 * v, jnp.zeros(9), KEY, top=2)
  assert zero.largest[0] == 0
  assert np.isnan(zero.largest[1])


def test_a_loss_that_is_not_finite_has_no_eigenvalues():
  found = extreme_eigenvalues(lambda v: v * jnp.nan, jnp.zeros(9), KEY)
  assert np.isnan(found.largest[0])
  assert np.isnan(found.smallest)


@pytest.mark.parametrize(("size", "devices"), [(24, None), (8, 8)])
@pytest.mark.parametrize("kind", ["hessian", "gauss_newton"])
def test_a_networks_eigenvalues_and_trace(kind, size, devices):
  mesh = None if devices is None else data_mesh(devices)
  loss = dataset_loss(forward, SOFTMAX, STATE, batches_of(size), mesh=mesh)
  of_loss = getattr(loss, f"{kind}_vector_product")
  matvec = lambda v: of_loss(PARAMS, v)  # noqa: E731
  expected = np.asarray(getattr(dense(SOFTMAX), kind), np.float64)
  values = np.linalg.eigvalsh(expected)
  found = extreme_eigenvalues(matvec, PARAMS, KEY, num_steps=39, top=2)
  np.testing.assert_allclose(found.largest, values[::-1][:2], rtol=1e-4)
  np.testing.assert_allclose(
    found.smallest, values[0], rtol=1e-4, atol=1e-6 * values[-1]
  )
  exact = xtrace(matvec, PARAMS, KEY, num_samples=20)
  np.testing.assert_allclose(exact.value, np.trace(expected), rtol=1e-4)
  assert exact.standard_error < 1e-6


def test_products_run_one_by_one_on_concrete_vectors():
  """Not in a loop of XLA's, where CPUs crawl through convolutions."""
  seen = []

  def matvec(v):
    assert not isinstance(v, jax.core.Tracer)
    seen.append(v.shape)
    return product(A)(v)

  extreme_eigenvalues(matvec, LIKE, KEY, num_steps=5)
  assert seen == [(60,)] * 5
  hutchinson_trace(matvec, LIKE, KEY, num_samples=3)
  assert len(seen) == 8
  xtrace(matvec, LIKE, KEY, num_samples=4)
  assert seen == [(60,)] * 16


@pytest.mark.parametrize(
  ("method", "low", "high"), [(hutchinson_trace, 1.0, 1.2), (xtrace, 1.1, 1.4)]
)
def test_standard_errors_are_those_of_repetitions(method, low, high):
  """Deviations of 400 z-scores: Student's 1.07 for 16 independent samples.

  XTrace's terms are not independent: its docstring says how much this costs.
  """

  def run(key):
    return method(product(A), LIKE, key, num_samples=16)

  values, errors = jax.jit(jax.vmap(run))(jax.random.split(KEY, 400))
  assert abs(np.mean(values) - SPECTRUM.sum()) < 4 * np.std(values) / 20
  assert low < np.std((values - SPECTRUM.sum()) / errors) < high


def test_xtrace_beats_hutchinson_where_few_eigenvalues_dominate():
  low_rank = matrix([50.0, 30.0] + [0.01] * 58)
  for key in jax.random.split(KEY, 3):
    estimate = xtrace(product(low_rank), LIKE, key, num_samples=8)
    np.testing.assert_allclose(estimate.value, 80.58, rtol=1e-3)
    assert estimate.standard_error < 0.05
    rough = hutchinson_trace(product(low_rank), LIKE, key, num_samples=16)
    assert rough.standard_error > 1


def test_quadrature_of_polynomials_and_density():
  """n Lanczos steps integrate polynomials of degree 2n - 1 exactly."""
  found = spectral_density(
    product(A), LIKE, KEY, num_steps=20, num_samples=30, bandwidth=0.3
  )
  np.testing.assert_allclose(found.weights.sum(1), 1, rtol=1e-4)
  for power in (1, 2, 5):
    moments = np.sum(found.weights * found.nodes**power, axis=1)
    error = np.std(moments, ddof=1) / np.sqrt(30)
    assert abs(moments.mean() - np.mean(SPECTRUM**power)) < 4 * error
  area = np.trapezoid(found.density, found.grid)
  np.testing.assert_allclose(area, 1, rtol=1e-3)
  gaps = (np.asarray(found.grid)[:, None] - SPECTRUM) / 0.3
  expected = np.exp(-(gaps**2) / 2).mean(1) / (0.3 * np.sqrt(2 * np.pi))
  z = (found.density - expected) / (found.standard_error + 1e-3)
  assert np.abs(z).max() < 5
  assert np.sqrt(np.mean(z**2)) < 1.5
  assert np.max(found.standard_error) < 0.2 * np.max(expected)


def test_the_density_of_the_zero_matrix():
  found = spectral_density(lambda v: 0 * v, jnp.zeros(9), KEY, num_samples=2)
  np.testing.assert_allclose(np.trapezoid(found.density, found.grid), 1, 1e-2)
  assert found.grid[np.argmax(found.density)] == pytest.approx(0, abs=1e-6)


def test_errors():
  for call, message in [
    (lambda: extreme_eigenvalues(product(A), LIKE, KEY, top=0), "top=0"),
    (
      lambda: extreme_eigenvalues(product(A), LIKE, KEY, num_steps=2, top=3),
      "top=3",
    ),
    (lambda: xtrace(product(A), LIKE, KEY, num_samples=1), "num_samples=1"),
    (
      lambda: hutchinson_trace(product(A), LIKE, KEY, num_samples=1),
      "num_samples=1",
    ),
    (
      lambda: spectral_density(product(A), LIKE, KEY, num_samples=1),
      "num_samples=1",
    ),
    (
      lambda: spectral_density(product(A), LIKE, KEY, bandwidth=0.0),
      "bandwidth=0.0",
    ),
  ]:
    with pytest.raises(ValueError, match=message):
      call()
