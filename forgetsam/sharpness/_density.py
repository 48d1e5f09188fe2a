"""The density of a curvature matrix's spectrum."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from forgetsam._checks import check_number
from forgetsam._typing import PyTree
from forgetsam.sharpness._host_loop import MatVec
from forgetsam.sharpness._lanczos import ritz_values


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
    ritz_values(matvec, like, k, num_steps)
    for k in jax.random.split(key, num_samples)
  ]
  weights = jnp.stack([run.weights for run in runs])
  # Steps after the Krylov space was exhausted weigh nothing, wherever they are.
  nodes = jnp.stack([run.values for run in runs])
  fill = jnp.nanmin(nodes, axis=1, keepdims=True)
  nodes = jnp.where(weights == 0, fill, nodes)
  low, high = jnp.nanmin(nodes), jnp.nanmax(nodes)
  sigma = _default_bandwidth(low, high) if bandwidth is None else bandwidth
  grid = jnp.linspace(low - 3 * sigma, high + 3 * sigma, num_points)
  samples = _smooth(grid, nodes, weights, sigma)
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


def _smooth(
  grid: Array, nodes: Array, weights: Array, sigma: float | Array
) -> Float[Array, "points samples"]:
  kernel = jax.scipy.stats.norm.pdf(grid[:, None, None], nodes, sigma)
  return jnp.sum(weights * kernel, axis=-1)
