"""A matrix's spectrum by Lanczos' iteration: its ends, and its density."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from forgetsam._checks import check_number
from forgetsam._lab import lab_packages
from forgetsam._typing import PyTree
from forgetsam.sharpness._host_loop import FlatMatVec, MatVec, run_algorithm

with lab_packages("forgetsam.sharpness"):
  from matfree import decomp


class Eigenvalues(NamedTuple):
  """The largest eigenvalues and the smallest, with their residuals.

  Attributes:
    largest: in descending order; nan where there are fewer.
    largest_error: an eigenvalue lies within this distance of each.
    smallest: the most negative one.
    smallest_error: the same of it.
  """

  largest: Float[Array, " top"]
  largest_error: Float[Array, " top"]
  smallest: Float[Array, ""]
  smallest_error: Float[Array, ""]


def extreme_eigenvalues(
  matvec: MatVec,
  like: PyTree,
  key: jax.Array,
  *,
  num_steps: int = 30,
  top: int = 1,
) -> Eigenvalues:
  r"""The largest and the smallest eigenvalues of a symmetric matrix.

  Lanczos' iteration from a random vector, with full reorthogonalisation. From
  m steps, :math:`A Q = Q T + \beta_m q_{m+1} e_m^\top`, each eigenpair
  :math:`T s = \theta s` gives an eigenvalue of A within

  .. math:: \lVert A Q s - \theta Q s \rVert = \lvert \beta_m s_m \rvert

  of :math:`\theta`. The true error of an isolated eigenvalue is about the
  square of that over the gap to the next. Values approach the ends from
  within, and an eigenvalue of higher multiplicity is found once. 20 to 30
  steps give the largest eigenvalue of a network's Hessian to about 1e-5.

  Args:
    matvec: `v -> A v` on trees like `like`, for example
      `lambda v: loss.hessian_vector_product(params, v)`.
    like: a tree of A's dimension, such as params.
    key: of the start vector.
    num_steps: m, matrix-vector products, of which m vectors are kept; no more
      are taken than A's dimension.
    top: how many of the largest eigenvalues.

  Returns:
    The eigenvalues with the bounds above, in float32.

  Raises:
    ValueError: top is below 1 or exceeds num_steps.

  Example:
    >>> diagonal = jnp.array([-1.0, 2.0, 3.0, 7.0])
    >>> found = extreme_eigenvalues(
    ...   lambda v: diagonal * v, diagonal, jax.random.key(0), num_steps=4
    ... )
    >>> round(float(found.largest[0]), 3), round(float(found.smallest), 3)
    (7.0, -1.0)

  References:
    Parlett, *The Symmetric Eigenvalue Problem*, 1998, theorem 4.5.1 and
    chapter 13.
  """
  if not 1 <= top <= num_steps:
    raise ValueError(f"top={top} must be between 1 and num_steps={num_steps}")
  run = _ritz_values(matvec, like, key, num_steps)
  down = jnp.argsort(jnp.where(run.belongs, -run.values, jnp.inf))[:top]
  low = jnp.argmin(jnp.where(run.belongs, run.values, jnp.inf))

  def at(x: Array, i: Array) -> Array:
    return jnp.where(run.belongs[i], x[i], jnp.nan)

  return Eigenvalues(
    at(run.values, down),
    at(run.residuals, down),
    at(run.values, low),
    at(run.residuals, low),
  )


class SpectralDensity(NamedTuple):
  """A smoothed density of eigenvalues that integrates to 1.

  Attributes:
    grid: eigenvalues at which the density is given.
    density: per unit of eigenvalue.
    standard_error: of the density, over the random vectors.
    nodes: the quadrature's eigenvalues, for each random vector.
    weights: their shares of the spectrum, which add up to 1 for each vector.
  """

  grid: Float[Array, " points"]
  density: Float[Array, " points"]
  standard_error: Float[Array, " points"]
  nodes: Float[Array, "samples steps"]
  weights: Float[Array, "samples steps"]


def spectral_density(
  matvec: MatVec,
  like: PyTree,
  key: jax.Array,
  *,
  num_steps: int = 50,
  num_samples: int = 10,
  num_points: int = 1001,
  bandwidth: float | None = None,
) -> SpectralDensity:
  r"""The density of eigenvalues, by stochastic Lanczos quadrature.

  Lanczos' iteration from a random vector v gives nodes :math:`\theta_j` and
  weights :math:`\tau_j` with :math:`\sum_j \tau_j f(\theta_j) \approx v^\top
  f(A) v / v^\top v`; with f a Gaussian and the mean over vectors,

  .. math:: \phi(t) = \frac1d \sum_{i=1}^d \mathcal N(t; \lambda_i, \sigma^2)
     \approx \frac1n \sum_{k=1}^n \sum_j \tau_j^{(k)}
       \mathcal N(t; \theta_j^{(k)}, \sigma^2).

  Args:
    matvec: `v -> A v` on trees like `like`.
    like: a tree of A's dimension d, such as params.
    key: of the vectors.
    num_steps: Lanczos steps, of which each vector takes so many products.
    num_samples: n, random vectors, at least 2.
    num_points: of the grid, which spans all nodes and three bandwidths more.
    bandwidth: :math:`\sigma`, in units of eigenvalues; `None` takes one per
      cent of the nodes' range (and 1 for a single eigenvalue at zero).

  Returns:
    The density with its standard error, and the quadrature itself: the share
    of eigenvalues below zero, for example, is
    `jnp.sum(weights * (nodes < 0)) / num_samples`, to within what num_steps
    resolve.

  Raises:
    ValueError: num_samples is below 2, num_steps or num_points below 1, or
      bandwidth is not above 0.

  Example:
    >>> diagonal = jnp.array([0.0, 0.0, 0.0, 4.0])
    >>> density = spectral_density(
    ...   lambda v: diagonal * v, diagonal, jax.random.key(0),
    ...   num_steps=2, num_samples=100,
    ... )
    >>> round(float(jnp.trapezoid(density.density, density.grid)), 2)
    1.0

  References:
    Ghorbani, Krishnan and Xiao, *An Investigation into Neural Net Optimization
    via Hessian Eigenvalue Density*, ICML 2019; Ubaru, Chen and Saad, *Fast
    Estimation of tr(f(A)) via Stochastic Lanczos Quadrature*, 2017.
  """
  check_number("num_samples", num_samples, low=2)
  check_number("num_steps", num_steps, low=1)
  check_number("num_points", num_points, low=1)
  if bandwidth is not None and not bandwidth > 0:
    raise ValueError(f"bandwidth={bandwidth} must be above 0")
  runs = [
    _ritz_values(matvec, like, k, num_steps)
    for k in jax.random.split(key, num_samples)
  ]
  weights = jnp.stack([run.weights for run in runs])
  # Steps after the Krylov space was exhausted weigh nothing, wherever they are.
  nodes = jnp.stack([run.values for run in runs])
  belongs = jnp.stack([run.belongs for run in runs])
  fill = jnp.min(jnp.where(belongs, nodes, jnp.inf), axis=1, keepdims=True)
  nodes = jnp.where(weights == 0, fill, nodes)
  low, high = jnp.min(nodes), jnp.max(nodes)
  sigma = _default_bandwidth(low, high) if bandwidth is None else bandwidth
  grid = jnp.linspace(low - 3 * sigma, high + 3 * sigma, num_points)
  kernel = jax.scipy.stats.norm.pdf(grid[:, None, None], nodes[None], sigma)
  samples = jnp.sum(weights[None] * kernel, axis=-1)
  return SpectralDensity(
    grid,
    samples.mean(axis=1),
    samples.std(axis=1, ddof=1) / jnp.sqrt(num_samples),
    nodes,
    weights,
  )


def _default_bandwidth(low: Array, high: Array) -> Array:
  spread = jnp.where(high > low, high - low, jnp.maximum(jnp.abs(high), 100.0))
  return spread / 100


class _RitzValues(NamedTuple):
  """Approximate eigenvalues, before the Krylov space was exhausted."""

  belongs: Bool[Array, " steps"]
  values: Float[Array, " steps"]
  weights: Float[Array, " steps"]  # Gauss quadrature's
  residuals: Float[Array, " steps"]  # an eigenvalue lies within this distance


def _ritz_values(
  matvec: MatVec, like: PyTree, key: jax.Array, num_steps: int
) -> _RitzValues:
  """Eigenvalues of the matrix's restriction to a random Krylov space."""

  def algorithm(product: FlatMatVec, zeros: Array) -> tuple[Array, Array]:
    # What tridiag_sym(reortho="full") calls, before it takes the mean with the
    # transpose: the lengths below the diagonal say where the space ends.
    decompose = decomp.hessenberg(
      min(num_steps, len(zeros)), reortho="full", custom_vjp=False
    )
    start = jax.random.normal(key, zeros.shape, zeros.dtype)
    result = decompose(product, start)
    return result.J_small, result.residual

  matrix, residual = run_algorithm(algorithm, matvec, like, key)
  lengths = jnp.append(jnp.diag(matrix, -1), jnp.linalg.norm(residual))
  return _decompose(jnp.diag(matrix), lengths)


@jax.jit
def _decompose(
  diagonal: Float[Array, " steps"], lengths: Float[Array, " steps"]
) -> _RitzValues:
  """Eigenvalues of the tridiagonal matrix, up to where its space ends.

  A residual that is zero to rounding (of the zero matrix, or one of low rank)
  ends the Krylov space: the entries so far are exact, those after it noise.
  """
  scale = jax.lax.cummax(jnp.maximum(jnp.abs(diagonal), lengths))
  rounding = 8 * jnp.finfo(diagonal.dtype).eps * scale
  goes_on = jnp.cumprod(lengths > rounding).astype(bool)
  valid = jnp.append(True, goes_on[:-1])
  off_diagonal = jnp.where(goes_on, lengths, 0.0)[:-1]
  matrix = (
    jnp.diag(jnp.where(valid, diagonal, 0.0))
    + jnp.diag(off_diagonal, 1)
    + jnp.diag(off_diagonal, -1)
  )
  values, vectors = jnp.linalg.eigh(matrix)
  belongs = jnp.sum(jnp.where(valid[:, None], vectors, 0.0) ** 2, axis=0) > 0.5
  residuals = jnp.where(goes_on[-1], jnp.abs(lengths[-1] * vectors[-1]), 0.0)
  largest = jnp.max(jnp.where(belongs, jnp.abs(values), 0.0))
  residuals = jnp.maximum(residuals, jnp.finfo(values.dtype).eps * largest)
  return _RitzValues(
    belongs,
    values,
    jnp.where(belongs, vectors[0] ** 2, 0.0),
    residuals,
  )
