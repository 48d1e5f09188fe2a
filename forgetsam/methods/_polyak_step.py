"""The Polyak step of SAM: a learning rate from the perturbed loss."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from forgetsam._arrays import (
  cast_like,
  to_length,
  tree_dot,
  tree_norm,
)
from forgetsam._checks import check_number
from forgetsam._passes import missing_loss
from forgetsam._typing import PyTree, Scalar


class PolyakStepState(NamedTuple):
  """State of `polyak_step`: the last step size."""

  step_size: Float[Array, ""]


def polyak_step(
  f_star: Scalar = 0.0, max_step: Scalar = 1.0
) -> optax.GradientTransformationExtraArgs:
  r"""SAM with the Polyak step: a combine rule that has the step size in it.

  .. math:: \eta = \operatorname{clip}\Bigl(\frac{L(w + \delta) - f^* -
     \langle g, \delta \rangle}{\lVert g \rVert^2}, 0, \eta_{\max}\Bigr),
     \qquad \text{result} = \eta\, g, \qquad g = \nabla L(w + \delta)

  The numerator is the loss at w as the perturbed point's tangent has it. The
  rule scales the gradient, so the optimizer takes it as it is:
  `chain(perturbed_gradient(sam(rho), polyak_step()), sgd(1.0))`, without
  momentum; the authors' offsets are `unified_sam`'s. Two passes. With
  micro-batches each has a step size of its own, and the state has their mean.

  Args:
    f_star: :math:`f^*`, a lower bound of the batch's loss.
    max_step: :math:`\eta_{\max}`, at least 0 (the authors' `gamma_b`).

  Raises:
    ValueError: f_star is not finite, or max_step is negative; `update` without
      `value_and_grad_fn`, which has the loss.

  Example:
    >>> import jax
    >>> from forgetsam import perturbed_gradient, sam
    >>> functions = jax.value_and_grad(lambda w: 0.5 * jnp.sum(w**2))
    >>> transform = perturbed_gradient(sam(0.0), polyak_step())
    >>> w = jnp.array([2.0])
    >>> transform.update(
    ...   w, transform.init(w), w, value_and_grad_fn=functions
    ... )[0]  # half of w, which is the gradient
    Array([1.], dtype=float32)

  References:
    Oikonomou and Loizou, ICML 2026, as their code has it.
  """
  check_number("f_star", f_star)
  check_number("max_step", max_step, low=0)

  def init_fn(params: PyTree) -> PolyakStepState:
    return PolyakStepState(jnp.zeros(()))

  def update_fn(
    grads: PyTree,
    state: PolyakStepState,
    params: PyTree | None = None,
    *,
    delta: PyTree,
    perturbed_loss: Array | None = None,
    **extra: Any,
  ) -> tuple[PyTree, PolyakStepState]:
    if perturbed_loss is None:
      raise missing_loss("polyak_step")
    norm = tree_norm(grads)
    gap = jnp.asarray(perturbed_loss).astype(norm.dtype) - f_star
    gap = gap - tree_dot(grads, delta).astype(norm.dtype)
    largest = max_step * norm
    length = jnp.clip(gap / jnp.where(norm == 0, 1, norm), 0, largest)
    size = length / jnp.where(norm == 0, 1, norm)
    result = cast_like(to_length(grads, length), grads)
    return result, PolyakStepState(size.astype(state.step_size.dtype))

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)
