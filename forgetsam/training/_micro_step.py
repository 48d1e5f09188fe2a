"""One micro-batch: the clean pass, its pullback, and the perturbed pass."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.interpreters import partial_eval
from jaxtyping import Array

from forgetsam._arrays import conj, is_float, tree_norm
from forgetsam._ascent import loss_ascent
from forgetsam._labels import apply, as_weights, check_labels, mean
from forgetsam._typing import (
  AscentSignal,
  Forward,
  GradFn,
  Loss,
  NDArray,
  PyTree,
)
from forgetsam.training._train_state import TrainState


class Weights(NamedTuple):
  """The weight of a micro-batch, and of the part that its clean pass takes."""

  whole: Array  # of gradients and the perturbation's state
  clean: Array  # of metrics and the model's state


class MicroBatchResult(NamedTuple):
  """Results of one micro-batch, or their average over several."""

  grads: PyTree
  metrics: dict[str, Array]
  model_state: PyTree
  perturb_state: Any
  weights: Weights | None = None  # of a batch with a mask


# (state, micro-batch, its global index, its dropout key) -> result
MicroStep = Callable[
  [TrainState, PyTree, int | Array, jax.Array], MicroBatchResult
]


def micro_batch_step(
  forward: Forward,
  *,
  loss: Loss,
  ascent: AscentSignal | None,
  perturb: optax.GradientTransformationExtraArgs | None,
  ascent_fraction: float,
  reads_ascent: bool,
) -> MicroStep:
  """Makes the work on one micro-batch, with arguments of `make_train_step`.

  Both passes share one dropout key; the model state advances in the clean pass.
  """
  signal = loss_ascent(loss) if ascent is None else ascent

  def step(
    state: TrainState, batch: PyTree, index: int | Array, key: jax.Array
  ) -> MicroBatchResult:
    def logits_fn(params: PyTree, examples: PyTree) -> tuple[Array, PyTree]:
      return forward(
        params, state.model_state, examples["image"], train=True, key=key
      )

    batch = _finite_where_nothing_counts(batch)

    def mean_loss(logits: Any, examples: PyTree) -> Array:
      where = examples.get("mask")
      return apply(loss, "loss", logits, examples["label"], where)

    def loss_fn(params: PyTree) -> Array:
      return mean_loss(logits_fn(params, batch)[0], batch)

    def clean_pass(params: PyTree) -> tuple[Array, GradFn, PyTree]:
      return jax.vjp(lambda p: logits_fn(p, clean), params, has_aux=True)

    def ascent_fn(params: PyTree) -> PyTree:
      logits, pullback, _ = clean_pass(params)
      return conj(pullback(direction(logits))[0])

    def direction(logits: Any) -> Any:
      where = clean.get("mask")
      return apply(signal, "ascent", logits, clean["label"], where)

    def grad_fn(params: PyTree) -> PyTree:
      return conj(jax.grad(loss_fn)(params))

    def value_and_grad_fn(params: PyTree) -> tuple[Array, PyTree]:
      value, grads = jax.value_and_grad(loss_fn)(params)
      return value, conj(grads)

    clean = _first_examples(batch, ascent_fraction)
    logits, pullback, model_state = clean_pass(state.params)
    metrics = {"loss": mean_loss(logits, clean).astype(jnp.float32)}
    if _is_classification(logits, clean["label"]):
      metrics["accuracy"] = _accuracy(logits, clean)
    weights = None
    if "mask" in batch:
      weights = Weights(_total_weight(batch), _total_weight(clean))
      model_state = jax.tree.map(
        lambda new, old: jnp.where(weights.clean == 0, old, new),
        model_state,
        state.model_state,
      )
    # Dead code, and compiled away, where the perturbation does not read it.
    ascent_grads = conj(pullback(direction(logits))[0])
    if perturb is None:
      return MicroBatchResult(
        ascent_grads, metrics, model_state, state.perturb_state, weights
      )
    if reads_ascent:
      metrics["ascent_grad_norm"] = tree_norm(ascent_grads)
    # One function where the two are the same, so that one pass can do for both.
    same = ascent is None and clean is batch
    grads, perturb_state = perturb.update(
      ascent_grads,
      state.perturb_state,
      state.params,
      grad_fn=grad_fn,
      value_and_grad_fn=value_and_grad_fn,
      ascent_fn=grad_fn if same else ascent_fn,
      micro_batch=index,
      opt_state=state.opt_state,
    )
    return MicroBatchResult(grads, metrics, model_state, perturb_state, weights)

  return step


def _first_examples(batch: PyTree, fraction: float) -> PyTree:
  size = len(batch["label"])
  # Rounded first: 0.1 * 30 is a little more than 3.
  count = math.ceil(round(fraction * size, 6))
  if count == size:
    return batch
  return jax.tree.map(lambda x: x[: max(count, 1)], batch)


def _total_weight(batch: PyTree) -> Array:
  weights = as_weights(batch["mask"], batch["mask"].shape)
  return jnp.sum(weights).astype(jnp.float32)


def _finite_where_nothing_counts(batch: PyTree) -> PyTree:
  """Zeros for nan and inf in examples of weight 0: 0 * nan is nan."""
  if "mask" not in batch:
    return batch
  mask = batch["mask"]
  counts = jnp.any(mask.reshape(len(mask), -1).astype(bool), axis=-1)

  def finite(x: NDArray) -> NDArray:
    if not is_float(x):
      return x
    here = counts.reshape(len(x), *[1] * (x.ndim - 1))
    return jnp.where(here | jnp.isfinite(x), x, 0)

  return batch | {"image": jax.tree.map(finite, batch["image"])}


def _is_classification(outputs: Any, labels: NDArray) -> bool:
  """Whether outputs have an accuracy; else the loss alone judges them."""
  if not isinstance(outputs, jax.Array) or outputs.shape[-1:] < (2,):
    return False
  if is_float(labels) and labels.shape != outputs.shape:
    return False
  check_labels(outputs, labels)
  return True


def _accuracy(logits: Array, batch: PyTree) -> Array:
  labels = batch["label"]
  soft = labels.ndim == logits.ndim
  classes = jnp.argmax(labels, axis=-1) if soft else labels
  found = jnp.argmax(logits, axis=-1)
  right = found == classes.astype(found.dtype)
  if "mask" not in batch:
    return jnp.mean(right, dtype=jnp.float32)
  weights = as_weights(batch["mask"], right.shape, 'batch["mask"]')
  return mean(right.astype(jnp.float32), weights.astype(jnp.float32))


def reads_ascent_gradient(
  perturb: optax.GradientTransformationExtraArgs, state: TrainState
) -> bool:
  """Whether `perturb`'s update depends on the ascent gradient's values.

  JAX's dead-code elimination says it, on a trace of the update alone; a
  transform cannot declare it, for its parts are the user's.
  """
  called = []

  def value_and_grad_fn(point: PyTree) -> tuple[Array, PyTree]:
    called.append(True)
    return optax.tree.norm(point).astype(jnp.float32), point

  def update(ascent_grads: PyTree, state: TrainState) -> Any:
    return perturb.update(
      ascent_grads,
      state.perturb_state,
      state.params,
      grad_fn=lambda point: value_and_grad_fn(point)[1],
      value_and_grad_fn=value_and_grad_fn,
      ascent_fn=lambda point: point,
      micro_batch=jnp.zeros((), jnp.int32),
      opt_state=state.opt_state,
    )

  jaxpr = jax.make_jaxpr(update)(state.params, state).jaxpr
  if not called:
    raise ValueError(
      "perturb never evaluates grad_fn, so it is a perturbation alone: wrap it,"
      " perturb=perturbed_gradient(perturbation)"
    )
  _, used = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
  return any(used[: len(jax.tree.leaves(state.params))])
