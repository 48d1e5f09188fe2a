"""Lanczos' tridiagonalisation, and the ends of a matrix's spectrum."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from matfree import decomp

from forgetsam._typing import PyTree
from forgetsam.sharpness._host_loop import FlatMatVec, MatVec, run_algorithm


class Eigenvalues(NamedTuple):
  """The largest eigenvalues and the smallest, with their residuals.

  Attributes:
    largest: in descending order; nan where there are fewer.
    largest_error: an eigenvalue lies within this distance of each.
    smallest: the most negative one.
    smallest_error: an eigenvalue lies within this distance of it.
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
  values, _, residuals = ritz_values(matvec, like, key, num_steps)
  down = jnp.argsort(jnp.where(jnp.isnan(values), jnp.inf, -values))[:top]
  low = jnp.argmin(jnp.where(jnp.isnan(values), jnp.inf, values))
  return Eigenvalues(values[down], residuals[down], values[low], residuals[low])


class RitzValues(NamedTuple):
  """Approximate eigenvalues from a Krylov space.

  Attributes:
    values: ascending; nan for steps after the Krylov space was exhausted.
    weights: squared first entries of the eigenvectors: Gauss quadrature's.
    residuals: :math:`\\lVert A u - \\theta u \\rVert` of each Ritz vector u;
      an eigenvalue lies within this distance.
  """

  values: Float[Array, " steps"]
  weights: Float[Array, " steps"]
  residuals: Float[Array, " steps"]


def ritz_values(
  matvec: MatVec, like: PyTree, key: jax.Array, num_steps: int
) -> RitzValues:
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
) -> RitzValues:
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
  return RitzValues(
    jnp.where(belongs, values, jnp.nan),
    jnp.where(belongs, vectors[0] ** 2, 0.0),
    jnp.where(belongs, residuals, jnp.nan),
  )
