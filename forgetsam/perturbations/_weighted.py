"""WSAM's combine rule: sharpness as a term with a weight of its own."""

import jax
from jaxtyping import Array

from forgetsam._arrays import at_least_float32
from forgetsam._checks import check_number
from forgetsam._typing import PyTree, Scalar
from forgetsam.perturbations._combine import Combine


def weighted(gamma: Scalar) -> Combine:
  r"""WSAM's combine rule: the loss and a weighted sharpness.

  .. math:: L(w) + \frac{\gamma}{1 - \gamma}
     \bigl(L(w + \delta) - L(w)\bigr), \qquad
     g = \frac{1 - 2\gamma}{1 - \gamma}\, g_a + \frac{\gamma}{1 - \gamma}\, g_p

  with :math:`g_p` the gradient at params + delta and :math:`g_a` the ascent
  gradient, which must be that of the *loss* at params: with another ascent
  signal, such as output bias forgetting, the first term would descend that
  objective and not the loss. Gamma 0 is plain training, 1/2 is SAM, and above
  it the plain gradient is extrapolated from.

  This is the paper's gradient without its weight decoupling, which applies the
  sharpness outside of the optimizer's momentum.

  Args:
    gamma: in [0, 1); the paper takes 0.8 to 0.95.

  Returns:
    A combine rule; sums are taken in float32, results come in the dtypes of the
    perturbed gradient.

  Raises:
    ValueError: gamma is outside [0, 1).

  Example:
    >>> import jax.numpy as jnp
    >>> combine = weighted(gamma=0.75)  # the sharpness three times
    >>> combine(jnp.array([1.0, 2.0]), None, jnp.array([2.0, 2.0]))
    Array([4., 2.], dtype=float32)

  References:
    Yue et al., *Sharpness-Aware Minimization Revisited: Weighted Sharpness as a
    Regularization Term*, KDD 2023.
  """
  check_number("gamma", gamma, low=0, high=1, exclude_high=True)
  weight = gamma / (1 - gamma)

  def combine(ascent_grads: PyTree, delta: PyTree, grads: PyTree) -> PyTree:
    del delta

    def mix(g_a: Array, g_p: Array) -> Array:
      total = (1 - weight) * at_least_float32(g_a)
      return (total + weight * at_least_float32(g_p)).astype(g_p.dtype)

    return jax.tree.map(mix, ascent_grads, grads)

  return combine
