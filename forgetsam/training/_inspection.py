"""What a perturbed gradient reads, found by tracing it once."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.extend.core import Literal

from forgetsam._typing import PyTree


class Reads(NamedTuple):
  """What the results of a perturbed gradient's update depend on."""

  gradient_functions: bool
  ascent_gradient: bool


def inspect_perturb(
  perturb: optax.GradientTransformationExtraArgs,
  params: PyTree,
  perturb_state: Any,
  opt_state: Any,
) -> Reads:
  """Traces `perturb.update` with stand-ins for the gradient functions.

  Args:
    perturb: a `perturbed_gradient`, or a transform in its place.
    params: parameters, or their shapes.
    perturb_state: the state of `perturb`, or its shapes.
    opt_state: the optimizer's state, or its shapes.

  Returns:
    Whether the update evaluates a gradient function, and whether its results
    depend on the values (not just the shapes) of the ascent gradient.
  """
  called = []

  def value_and_grad_fn(point: PyTree) -> tuple[jax.Array, PyTree]:
    called.append(True)
    norm = optax.tree.norm(point)
    return norm.astype(jnp.float32), point

  def update(
    ascent_grads: PyTree, params: PyTree, perturb_state: Any, opt_state: Any
  ) -> Any:
    return perturb.update(
      ascent_grads,
      perturb_state,
      params,
      grad_fn=lambda point: value_and_grad_fn(point)[1],
      value_and_grad_fn=value_and_grad_fn,
      ascent_fn=lambda point: point,
      micro_batch=jnp.zeros((), jnp.int32),
      opt_state=opt_state,
    )

  jaxpr = jax.make_jaxpr(update)(params, params, perturb_state, opt_state).jaxpr
  live = {v for v in jaxpr.outvars if not isinstance(v, Literal)}
  for equation in reversed(jaxpr.eqns):
    if live.intersection(equation.outvars):
      live.update(v for v in equation.invars if not isinstance(v, Literal))
  ascent_inputs = jaxpr.invars[: len(jax.tree.leaves(params))]
  return Reads(bool(called), not live.isdisjoint(ascent_inputs))
