"""Scaling by the weights' magnitude: what makes a perturbation adaptive."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from forgetsam._arrays import at_least_float32
from forgetsam._checks import check_number
from forgetsam._typing import PyTree, Scalar


def scale_by_magnitude(
  eta: Scalar = 0.0,
) -> optax.GradientTransformationExtraArgs:
  r"""Multiplies elementwise by the weights' magnitude.

  .. math:: g \mapsto (\lvert w \rvert + \eta) \odot g

  Args:
    eta: what is added to the magnitude, in units of the weights, at least 0.

  Returns:
    A stateless transformation that needs `params`.

  Raises:
    ValueError: eta is negative or nan; `update` without params.

  Example:
    >>> transform = scale_by_magnitude(eta=1.0)
    >>> w = jnp.array([-2.0, 0.0])
    >>> transform.update(jnp.array([1.0, 1.0]), transform.init(w), w)[0]
    Array([3., 1.], dtype=float32)

  References:
    Kwon et al., *ASAM: Adaptive Sharpness-Aware Minimization for
    Scale-Invariant Learning of Deep Neural Networks*, ICML 2021, section 3.
  """
  check_number("eta", eta, low=0)

  def update_fn(
    updates: PyTree,
    state: optax.EmptyState,
    params: PyTree | None = None,
    **extra: object,
  ) -> tuple[PyTree, optax.EmptyState]:
    del extra
    if params is None:
      raise ValueError(
        "scale_by_magnitude needs params: call update(grads, state, params)"
      )

    def scale(g: Array, w: Array) -> Array:
      magnitude = jnp.abs(at_least_float32(w)) + eta
      return (magnitude * at_least_float32(g)).astype(g.dtype)

    return jax.tree.map(scale, updates, params), state

  return optax.GradientTransformationExtraArgs(
    lambda params: optax.EmptyState(), update_fn
  )
