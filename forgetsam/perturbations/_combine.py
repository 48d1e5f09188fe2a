"""Rules that combine the clean and the perturbed gradient.

A rule maps `(ascent_grads, delta, grads)`, three trees with params' structure,
to the descent gradient; it is `perturbed_gradient`'s argument `combine`.
"""

from collections.abc import Callable

import jax
from jaxtyping import Array

from forgetsam._arrays import at_least_float32, tree_dot, unit
from forgetsam._checks import check_number
from forgetsam._typing import PyTree, Scalar

Combine = Callable[[PyTree, PyTree, PyTree], PyTree]


def surrogate_gap(alpha: Scalar, normalized: bool = False) -> Combine:
  r"""GSAM's combine rule: descend the perturbed loss, ascend across it.

  .. math:: g = g_p - \alpha \bigl(a - \langle a, \hat g_p \rangle \hat g_p
     \bigr), \qquad \hat g_p = g_p / \lVert g_p \rVert

  with :math:`g_p` the gradient at params + delta and a the ascent gradient,
  or, normalised, :math:`a = \delta / \lVert \delta \rVert` (0 where
  :math:`\delta = 0`). What is subtracted is orthogonal to :math:`g_p`, so that
  the perturbed loss falls as fast as without it, to first order.

  Args:
    alpha: weight of the orthogonal part, dimensionless (normalised: in units
      of the gradient).
    normalized: whether to project the offset's direction instead of the raw
      ascent gradient.

  Returns:
    A combine rule; products and norms are taken in float32, results come in
    the dtypes of the perturbed gradient.

  Raises:
    ValueError: alpha is nan or infinite.

  Example:
    >>> import jax.numpy as jnp
    >>> combine = surrogate_gap(alpha=0.5)
    >>> combine(jnp.array([1.0, 2.0]), None, jnp.array([3.0, 0.0]))
    Array([ 3., -1.], dtype=float32)

  References:
    Zhuang et al., *Surrogate Gap Minimization Improves Sharpness-Aware
    Training*, ICLR 2022, algorithm 1.
  """
  check_number("alpha", alpha)

  def combine(ascent_grads: PyTree, delta: PyTree, grads: PyTree) -> PyTree:
    a = unit(delta) if normalized else ascent_grads
    direction = unit(grads)
    along = tree_dot(a, direction)

    def correct(g: Array, a_leaf: Array, d: Array) -> Array:
      orthogonal = at_least_float32(a_leaf) - along * d
      return (at_least_float32(g) - alpha * orthogonal).astype(g.dtype)

    return jax.tree.map(correct, grads, a, direction)

  return combine
