"""Lanczos' tridiagonalisation, with full reorthogonalisation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from matfree import decomp

from forgetsam._typing import PyTree
from forgetsam.sharpness._host_loop import FlatMatVec, MatVec, run_algorithm


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
