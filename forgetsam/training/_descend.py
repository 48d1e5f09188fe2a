"""From the averaged gradient to the updated state."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from forgetsam._arrays import cast_like, tree_norm
from forgetsam.training._micro_step import MicroBatchResult
from forgetsam.training._train_state import TrainState

Metrics = dict[str, Array]


def descend(
  optimizer: optax.GradientTransformationExtraArgs,
  state: TrainState,
  result: MicroBatchResult,
) -> tuple[TrainState, Metrics]:
  """Applies the optimizer, or keeps the state where a number is not finite."""
  metrics = result.metrics | _perturbation_metrics(result.perturb_state)
  metrics["grad_norm"] = tree_norm(result.grads)
  checked = ("loss", "perturbed_loss", "grad_norm")
  finite = jnp.all(
    jnp.stack([jnp.isfinite(metrics[k]) for k in checked if k in metrics])
  )
  metrics["skipped"] = 1.0 - finite.astype(jnp.float32)
  updates, opt_state = optimizer.update(
    cast_like(result.grads, state.params),
    state.opt_state,
    state.params,
    value=metrics["loss"],
  )
  new_state = TrainState(
    step=state.step + 1,
    params=optax.apply_updates(state.params, updates),
    model_state=result.model_state,
    opt_state=opt_state,
    perturb_state=result.perturb_state,
  )

  def keep_if_finite(new: Array, old: Array) -> Array:
    return jnp.where(finite, new, old).astype(old.dtype)

  return jax.tree.map(keep_if_finite, new_state, state), metrics


def _perturbation_metrics(perturb_state: Any) -> Metrics:
  names = ("perturbed_loss", "perturbation_norm")
  found = {name: optax.tree.get(perturb_state, name) for name in names}
  return {name: value for name, value in found.items() if value is not None}
