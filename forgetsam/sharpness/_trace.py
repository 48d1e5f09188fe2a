"""Traces of curvature matrices, with standard errors."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from forgetsam._checks import check_number
from forgetsam._estimate import Estimate, estimate_mean
from forgetsam._lab import lab_packages
from forgetsam._typing import PyTree
from forgetsam.sharpness._host_loop import FlatMatVec, MatVec, run_algorithm

with lab_packages("forgetsam.sharpness"):
  from matfree import stochtrace


def hutchinson_trace(
  matvec: MatVec, like: PyTree, key: jax.Array, *, num_samples: int = 100
) -> Estimate:
  r"""Hutchinson's estimate of a trace.

  .. math:: \operatorname{tr} A \approx \frac1n \sum_{i=1}^n
     v_i^\top A v_i, \qquad v_i \in \{-1, 1\}^d \text{ uniform}

  Args:
    matvec: `v -> A v` on trees like `like`.
    like: a tree of A's dimension, such as params.
    key: of the vectors.
    num_samples: n, matrix-vector products, at least 2.

  Returns:
    The trace and its standard error, the samples' deviation over
    :math:`\sqrt n`.

  Raises:
    ValueError: num_samples is below 2.

  Example:
    >>> diagonal = jnp.array([-1.0, 2.0, 3.0])
    >>> estimate = hutchinson_trace(
    ...   lambda v: diagonal * v, diagonal, jax.random.key(0), num_samples=5
    ... )
    >>> float(estimate.value), float(estimate.standard_error)  # exact here
    (4.0, 0.0)

  References:
    Hutchinson, *A Stochastic Estimator of the Trace of the Influence Matrix
    for Laplacian Smoothing Splines*, 1990.
  """
  check_number("num_samples", num_samples, low=2)
  quadratic_form = stochtrace.monte_carlo_trace()

  def algorithm(product: FlatMatVec, zeros: Array) -> Array:
    sampler = stochtrace.sampler_signs(zeros, num=1)
    return jax.lax.map(
      lambda k: quadratic_form(product, sampler(k)[0]),
      jax.random.split(key, num_samples),
    )

  return estimate_mean(run_algorithm(algorithm, matvec, like, key))


def xtrace(
  matvec: MatVec, like: PyTree, key: jax.Array, *, num_samples: int = 50
) -> Estimate:
  r"""XTrace: a trace from a low-rank approximation and its residual.

  With :math:`Q_{-i}` a basis of :math:`A [v_1 \dots v_n]` without the i-th
  column,

  .. math:: \operatorname{tr} A \approx \frac1n \sum_i \Bigl[
     \operatorname{tr}(Q_{-i}^\top A Q_{-i}) + v_i^\top (I - Q_{-i}
     Q_{-i}^\top) A (I - Q_{-i} Q_{-i}^\top) v_i \Bigr].

  It beats Hutchinson's estimate where few eigenvalues dominate. From half the
  dimension on, the trace is taken exactly.

  Args:
    matvec: `v -> A v` on trees like `like`.
    like: a tree of A's dimension, such as params.
    key: of the vectors.
    num_samples: n, at least 2: 2 n matrix-vector products, and 3 n vectors of
      the dimension in memory.

  Returns:
    The trace, and the deviation of the n terms over :math:`\sqrt n`. The terms
    share most of their vectors: in our tests this was 10 to 20 per cent less
    than the estimate's real deviation.

  Raises:
    ValueError: num_samples is below 2.

  Example:
    >>> diagonal = jnp.zeros(100).at[3].set(5.0)
    >>> estimate = xtrace(
    ...   lambda v: diagonal * v, diagonal, jax.random.key(0), num_samples=4
    ... )
    >>> round(float(estimate.value), 3)
    5.0

  References:
    Epperly, Tropp and Webber, *XTrace: Making the Most of Every Sample in
    Stochastic Trace Estimation*, 2024.
  """
  check_number("num_samples", num_samples, low=2)
  terms = stochtrace.leave_one_out_xtrace()

  def algorithm(product: FlatMatVec, zeros: Array) -> Array:
    n = len(zeros)
    if 2 * num_samples >= n:
      unit = lambda i: zeros.at[i].set(1.0)  # noqa: E731
      diagonal = jax.lax.map(lambda i: product(unit(i))[i], jnp.arange(n))
      return jnp.full(num_samples, jnp.sum(diagonal))
    return terms(
      product, stochtrace.sampler_normal(zeros, num=num_samples)(key)
    )

  return estimate_mean(run_algorithm(algorithm, matvec, like, key))
