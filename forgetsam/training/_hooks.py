"""Which of a step's extra arguments are read: what is not is not computed.

JAX's dead-code elimination says it, on a trace of an update alone; a transform
cannot declare it, for its parts are the user's.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.interpreters import partial_eval
from jaxtyping import Array

from forgetsam._arrays import usual_promotion
from forgetsam._typing import PyTree
from forgetsam.training._train_state import TrainState


def reads_ascent_gradient(
  perturb: optax.GradientTransformationExtraArgs,
  state: TrainState,
  micro_batch_size: int,
  previous: bool = False,
) -> bool:
  """Whether `perturb`'s update depends on the ascent gradient's values.

  With `previous`, it must read the batch before.
  """
  called, looked_back = [], []

  def value_and_grad_fn(point: PyTree) -> tuple[Array, PyTree]:
    called.append(True)
    return optax.tree.norm(point).astype(jnp.float32), point

  def previous_value_and_grad_fn(point: PyTree) -> tuple[Array, PyTree]:
    looked_back.append(True)
    return value_and_grad_fn(point)

  others: dict[str, Any] = {}
  if previous:
    others["previous_value_and_grad_fn"] = previous_value_and_grad_fn

  def update(ascent_grads: PyTree, state: TrainState) -> Any:
    return perturb.update(
      ascent_grads,
      state.perturb_state,
      state.params,
      grad_fn=lambda point: value_and_grad_fn(point)[1],
      value_and_grad_fn=value_and_grad_fn,
      ascent_fn=lambda point: point,
      losses_fn=lambda point: jnp.full(
        micro_batch_size, optax.tree.norm(point).astype(jnp.float32)
      ),
      micro_batch=jnp.zeros((), jnp.int32),
      opt_state=state.opt_state,
      **others,
    )

  reads = _depends(update, state)
  if previous and not looked_back:
    raise ValueError(
      'the batch has "previous", the batch before, which perturb does not '
      "read: leave it out"
    )
  if not called:
    raise ValueError(
      "perturb never evaluates grad_fn, so it is a perturbation alone: wrap it,"
      " perturb=perturbed_gradient(perturbation)"
    )
  return reads


def reads_clean_gradient(
  optimizer: optax.GradientTransformationExtraArgs, state: TrainState
) -> bool:
  """Whether the optimizer's update depends on its argument `clean_grads`."""

  def update(clean_grads: PyTree, state: TrainState) -> Any:
    with usual_promotion():
      return optimizer.update(
        state.params,
        state.opt_state,
        state.params,
        value=jnp.zeros((), jnp.float32),
        clean_grads=clean_grads,
      )

  try:
    return _depends(update, state)
  except (TypeError, ValueError):
    # It takes no such argument, or other gradients; or `descend` says what is
    # wrong.
    return False


def _depends(
  update: Callable[[PyTree, TrainState], Any], state: TrainState
) -> bool:
  """Whether an update depends on its first argument, a tree like params."""
  jaxpr = jax.make_jaxpr(update)(state.params, state).jaxpr
  _, used = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
  return any(used[: len(jax.tree.leaves(state.params))])
