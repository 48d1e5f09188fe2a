"""The descent: the optimizer's update, unless a number is not finite."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from forgetsam._arrays import cast_like, tree_norm, usual_promotion
from forgetsam._typing import PyTree
from forgetsam.training._micro_step import MicroBatchResult
from forgetsam.training._train_state import TrainState

Metrics = dict[str, Array]


def descend(
  optimizer: optax.GradientTransformationExtraArgs,
  state: TrainState,
  result: MicroBatchResult,
  *,
  reads_clean: bool,
) -> tuple[TrainState, Metrics]:
  """Applies the optimizer, or keeps the state where a number is not finite."""
  metrics = result.metrics | {"grad_norm": tree_norm(result.grads)}
  # Plain training's gradient is the clean one.
  clean_grads = metrics.pop("clean_grads", result.grads)
  for name in ("perturbed_loss", "perturbation_norm"):
    found = optax.tree.get_all_with_path(result.perturb_state, name)
    if found:  # a perturbation's own state may have the name, further in
      metrics[name] = min(found, key=lambda entry: len(entry[0]))[1]
  checked = ("loss", "perturbed_loss", "grad_norm")
  finite = jnp.all(
    jnp.stack([jnp.isfinite(metrics[k]) for k in checked if k in metrics])
  )
  metrics["skipped"] = 1.0 - finite.astype(jnp.float32)
  extra = {"value": metrics["loss"]}
  if reads_clean:
    extra["clean_grads"] = cast_like(clean_grads, state.params)
  grads = cast_like(result.grads, state.params)
  updates, opt_state = _update(optimizer, grads, state, extra)
  _check_shapes(updates, state.params)
  new_state = TrainState(
    step=state.step + 1,
    params=optax.apply_updates(state.params, updates),
    model_state=result.model_state,
    opt_state=opt_state,
    perturb_state=result.perturb_state,
  )
  kept = jax.tree.map(
    lambda new, old: jnp.where(finite, new, old).astype(old.dtype),
    new_state,
    state,
  )
  return kept, metrics


def _check_shapes(updates: PyTree, params: PyTree) -> None:
  for u, w in zip(
    jax.tree.leaves(updates), jax.tree.leaves(params), strict=True
  ):
    if u.shape != w.shape:
      raise ValueError(
        f"optimizer gives an update of shape {u.shape} for params of {w.shape}:"
        " what lookbehind returns is for slow_weights(optimizer, alpha)"
      )


def _update(
  optimizer: optax.GradientTransformationExtraArgs,
  grads: PyTree,
  state: TrainState,
  extra: dict[str, Any],
) -> tuple[PyTree, Any]:
  try:
    with usual_promotion():
      return optimizer.update(grads, state.opt_state, state.params, **extra)
  except TypeError as error:
    if "argument" not in str(error) or isinstance(
      error, jax.errors.JAXTypeError
    ):
      raise
    raise ValueError(
      "optimizer takes other extra arguments than a step passes, which are "
      "value, the training loss, and clean_grads, where it reads them: "
      f"{error}. Its update must take value or **extra, and need nothing else"
    ) from error
