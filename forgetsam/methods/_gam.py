"""GAM: descending the loss and its gradient's norm, both perturbed."""

from typing import Any, NamedTuple

import optax

from forgetsam._arrays import add_delta, cast_like, wide_zeros
from forgetsam._checks import check_number, check_rho
from forgetsam._passes import needed_ascent_fn, value_and_grad
from forgetsam._typing import GradFn, PyTree, Scalar, ValueAndGradFn
from forgetsam.perturbations import (
  PerturbedGradientState,
  perturbed_gradient,
  scale_to_radius,
  surrogate_gap,
)


class GAMState(NamedTuple):
  """States of `gam`'s two perturbations."""

  perturbation: Any
  across: Any


def gam(
  perturbation: optax.GradientTransformation,
  norm_rho: optax.ScalarOrSchedule,
  beta_1: Scalar = 1.0,
  beta_2: Scalar = 1.0,
  beta_3: Scalar = 1.0,
  gamma: Scalar = 0.1,
) -> optax.GradientTransformationExtraArgs:
  r"""Gradient norm aware minimization: seeks first-order flatness.

  .. math:: g_0 = \nabla L(w), \quad g_1 = \nabla L(w + P(w)), \quad
     w' = w + \rho' \frac{g_1 - g_0}{\lVert g_1 - g_0 \rVert}, \quad
     g_2 = \nabla L(w'), \quad g_3 = \nabla L(w' + P(w'))

  .. math:: a = g_0 + \beta_2 g_2, \quad b = \beta_1 g_1 + \beta_3 g_3, \quad
     \text{result} = b - \gamma \bigl(a - \langle a, \hat b \rangle
     \hat b\bigr), \quad \hat b = b / \lVert b \rVert

  with P(w) the perturbation of the ascent gradient at w: for `sam`,
  :math:`g_1 - g_0` points where the gradient's norm rises. It takes the place
  of `perturbed_gradient`; the last formula is `surrogate_gap`'s. Four passes,
  or six where the ascent is not the loss. Both calls of P read the same state.

  Args:
    perturbation: from ascent gradients to offsets, such as `sam(rho)`.
    norm_rho: :math:`\rho'`, the radius of the ascent of the norm; a float, at
      least 0, or a schedule of the update count.
    beta_1, beta_2, beta_3: weights of the gradients (the official code takes
      the absolute value of its `grad_beta_2`).
    gamma: weight of the orthogonal part.

  Returns:
    A transformation with the arguments and the state of `perturbed_gradient`,
    whose perturbed_loss and perturbation_norm are those at w + P(w).

  Raises:
    ValueError: norm_rho is negative, or a weight is not finite; `update`
      without params, a gradient function or ascent_fn.

  Example:
    >>> import jax.numpy as jnp
    >>> from forgetsam import sam
    >>> transform = gam(sam(rho=1.0), norm_rho=1.0)
    >>> grad_fn = lambda w: w  # of 1/2 w^2
    >>> w = jnp.array([2.0])
    >>> transform.update(
    ...   w, transform.init(w), w, grad_fn=grad_fn, ascent_fn=grad_fn
    ... )[0]  # (2 + 1) + (2 + 1 + 1)
    Array([7.], dtype=float32)

  References:
    Zhang et al., *Gradient Norm Aware Minimization Seeks First-Order Flatness
    and Improves Generalization*, CVPR 2023; the formula is the official code's.
  """
  check_rho("norm_rho", norm_rho)
  weights = {
    "beta_1": beta_1,
    "beta_2": beta_2,
    "beta_3": beta_3,
    "gamma": gamma,
  }
  for name, weight in weights.items():
    check_number(name, weight)
  transform = perturbed_gradient(perturbation)
  ascend_norm, combine = scale_to_radius(norm_rho), surrogate_gap(gamma)

  def init_fn(params: PyTree) -> PerturbedGradientState:
    state = transform.init(params)
    memory = GAMState(state.perturbation, ascend_norm.init(params))
    return state._replace(perturbation=memory)

  def update_fn(
    ascent_grads: PyTree,
    state: PerturbedGradientState,
    params: PyTree | None = None,
    *,
    grad_fn: GradFn | None = None,
    value_and_grad_fn: ValueAndGradFn | None = None,
    ascent_fn: GradFn | None = None,
    **extra: Any,
  ) -> tuple[PyTree, PerturbedGradientState]:
    loss_and_grads = value_and_grad("gam", params, grad_fn, value_and_grad_fn)
    ascent_fn = needed_ascent_fn("gam", params, ascent_fn)
    extra |= {
      "grad_fn": grad_fn,
      "value_and_grad_fn": value_and_grad_fn,
      "ascent_fn": ascent_fn,
    }
    memory = state.perturbation
    before = state._replace(perturbation=memory.perturbation)
    clean = loss_and_grads(params)[1]
    first, after = transform.update(ascent_grads, before, params, **extra)
    rise = add_delta(first, clean, -1.0)
    delta, across = ascend_norm.update(rise, memory.across)
    point = add_delta(params, delta)
    second = loss_and_grads(point)[1]
    ascent = second if ascent_fn is grad_fn else ascent_fn(point)
    third, _ = transform.update(ascent, before, point, **extra)
    plain = add_delta(clean, second, beta_2)
    perturbed = add_delta(wide_zeros(first), first, beta_1)
    perturbed = add_delta(perturbed, third, beta_3)
    grads = cast_like(combine(plain, None, perturbed), params)
    memory = GAMState(after.perturbation, across)
    return grads, after._replace(perturbation=memory)

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)
