"""GNP: penalising the gradient's norm."""

import jax

from forgetsam._arrays import at_least_float32, unit
from forgetsam._checks import check_number
from forgetsam._typing import PyTree, Scalar
from forgetsam.perturbations import Combine, weighted


def gnp(alpha: Scalar = 0.8, normalized: bool = False) -> Combine:
  r"""GNP's combine rule: the gradient of the loss and of its gradient's norm.

  .. math:: g = (1 - \alpha) g_a + \alpha\, g_p \approx \nabla \bigl(L +
     \lambda \lVert \nabla L \rVert\bigr), \qquad \lambda = \alpha \rho

  with :math:`g_a` the ascent gradient, which must be that of the *loss* (see
  `with_clean_gradient`), and :math:`g_p` the gradient at params + delta, of
  `sam(rho)`. It is `weighted` with gamma = alpha / (1 + alpha); alpha 1 is SAM.

  Args:
    alpha: the perturbed gradient's share, at least 0.
    normalized: whether the loss's gradient enters with length 1, an option of
      the official code.

  Raises:
    ValueError: alpha is outside [0, 1e6].

  Example:
    >>> import jax.numpy as jnp
    >>> combine = gnp(alpha=0.5)
    >>> combine(jnp.array([1.0, 2.0]), None, jnp.array([2.0, 2.0]))
    Array([1.5, 2. ], dtype=float32)

  References:
    Zhao et al., *Penalizing Gradient Norm for Efficiently Improving
    Generalization in Deep Learning*, ICML 2022, algorithm 1.
  """
  check_number("alpha", alpha, low=0, high=1e6)
  mix = weighted(alpha / (1 + alpha))
  if not normalized:
    return mix

  def combine(ascent_grads: PyTree, delta: PyTree, grads: PyTree) -> PyTree:
    wide = jax.tree.map(at_least_float32, grads)
    mixed = mix(unit(ascent_grads), delta, wide)
    return jax.tree.map(lambda m, g: m.astype(g.dtype), mixed, grads)

  return combine
