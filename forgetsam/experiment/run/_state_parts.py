"""A state in two parts for its checkpoint: variables, and what trains them."""

from typing import Any

import jax

from forgetsam._arrays import at_least_float32, is_masked
from forgetsam._optimizers import ParamsEmaState, averaged_params
from forgetsam.training import TrainState


def parts_of(state: TrainState) -> dict[str, Any]:
  """Separates what models need from what only training needs."""
  variables = {"params": state.params, "model_state": state.model_state}
  # Not cast to low precision.
  wide = jax.tree.map(at_least_float32, state.params)
  if (ema := averaged_params(wide, state.opt_state)) is not None:
    variables["ema"] = ema
  opt_state = jax.tree.map(
    lambda x: x._replace(average=()) if _is_ema(x) else x,
    state.opt_state,
    is_leaf=_is_ema,
  )
  return {
    "variables": variables,
    "training": {
      "step": state.step,
      "opt_state": opt_state,
      "perturb_state": state.perturb_state,
    },
  }


def whole(parts: dict[str, Any], target: TrainState) -> TrainState:
  """The state that `parts_of` took apart, of the target's structure."""
  variables, training = dict(parts["variables"]), dict(parts["training"])
  ema = variables.pop("ema", None)

  def put_back(x: Any, like: Any) -> Any:
    if not _is_ema(x):
      return x
    # Under `optax.partition` it lacks what does not train.
    average = jax.tree.map(
      lambda old, new: old if is_masked(old) else new,
      like.average,
      ema,
      is_leaf=is_masked,
    )
    return x._replace(average=average)

  training["opt_state"] = jax.tree.map(
    put_back, training["opt_state"], target.opt_state, is_leaf=_is_ema
  )
  return TrainState(**variables, **training)


def _is_ema(x: Any) -> bool:
  return isinstance(x, ParamsEmaState)
