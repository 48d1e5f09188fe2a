"""CR-SAM: SAM with the curvature along its offset as a penalty."""

from typing import Any

import jax
import optax
from jaxtyping import Array

from forgetsam._arrays import add_delta, at_least_float32, cast_like
from forgetsam._checks import check_number
from forgetsam._typing import GradFn, PyTree, Scalar
from forgetsam.perturbations import perturbed_gradient


def cr_sam(
  perturbation: optax.GradientTransformation,
  gamma: Scalar = 0.1,
  beta: Scalar = 0.1,
) -> optax.GradientTransformationExtraArgs:
  r"""Curvature-regularised SAM: gradients on both sides of the weights.

  .. math:: g_\pm = \nabla L(w \pm \delta), \qquad
     \text{result} = g_+ + \gamma\, (g_+ + g_- - 2 g) + \beta\, (g_+ - g_-)

  with :math:`g = \nabla L(w)` and :math:`\delta` the perturbation. It takes the
  place of `perturbed_gradient`, and costs three gradients: g is the ascent
  gradient where `ascent_fn` is `grad_fn`, as in `make_train_step` without
  another ascent, and costs a pass of its own else.

  The weights are the official code's. The paper penalises
  :math:`\alpha \log` of the curvature and :math:`-\beta \log` of the slope,
  which divides gamma and beta by these finite differences of the loss.

  Args:
    perturbation: from ascent gradients to offsets, such as `sam(rho)`.
    gamma: weight of the second difference.
    beta: weight of the first difference.

  Returns:
    A transformation with the arguments of `perturbed_gradient` and its state.

  Raises:
    ValueError: gamma or beta is not finite; what `perturbed_gradient` refuses.

  Example:
    >>> import jax.numpy as jnp
    >>> from forgetsam import sam
    >>> grad_fn = jax.grad(lambda w: jnp.sum(w**3))  # the gradient is 3 w^2
    >>> transform = cr_sam(sam(rho=1.0), gamma=0.5, beta=0.0)
    >>> w = jnp.array([2.0])
    >>> transform.update(grad_fn(w), transform.init(w), w, grad_fn=grad_fn)[0]
    Array([30.], dtype=float32)

  References:
    Wu et al., *CR-SAM: Curvature Regularized Sharpness-Aware Minimization*,
    AAAI 2024.
  """
  check_number("gamma", gamma)
  check_number("beta", beta)

  def update_fn(
    grads: PyTree,
    state: optax.EmptyState,
    params: PyTree | None = None,
    *,
    ascent_grads: PyTree,
    delta: PyTree,
    grad_fn: GradFn,
    ascent_fn: GradFn | None = None,
    **extra: Any,
  ) -> tuple[PyTree, optax.EmptyState]:
    behind = grad_fn(add_delta(params, delta, -1.0))
    plain = ascent_grads if ascent_fn is grad_fn else grad_fn(params)

    def regularise(p: Array, b: Array, g: Array) -> Array:
      p, b, g = at_least_float32(p), at_least_float32(b), at_least_float32(g)
      return p + gamma * (p + b - 2 * g) + beta * (p - b)

    result = jax.tree.map(regularise, grads, behind, plain)
    return cast_like(result, grads), state

  rule = optax.GradientTransformationExtraArgs(
    lambda params: optax.EmptyState(), update_fn
  )
  return perturbed_gradient(perturbation, rule)
