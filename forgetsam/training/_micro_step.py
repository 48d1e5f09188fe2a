"""One micro-batch: the clean pass, its pullback, and the perturbed pass."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from forgetsam._arrays import at_least_float32, conj, is_float, tree_norm
from forgetsam._ascent import loss_ascent
from forgetsam._labels import as_weights
from forgetsam._objectives import (
  ascent_direction,
  example_losses,
  mean_loss,
  run_forward,
)
from forgetsam._typing import (
  AscentSignal,
  Forward,
  GradFn,
  Loss,
  NDArray,
  PyTree,
)
from forgetsam.training._metrics import OWN, MetricsFn, mean_metrics
from forgetsam.training._train_state import TrainState


class Examples(NamedTuple):
  """The parts of a batch that a step reads, whatever their keys are."""

  inputs: PyTree
  labels: PyTree
  mask: NDArray | None  # weights of examples, or of label positions
  previous: Any = None  # the Examples of the step before, where they are read


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
  [TrainState, Examples, int | Array, jax.Array], MicroBatchResult
]


class Parts(NamedTuple):
  """The parts of a step: arguments of `make_train_step`, and what they read.

  Attributes:
    reads_ascent: whether the perturbation reads the ascent gradient.
    reads_clean: whether the optimizer reads the clean gradient.
  """

  forward: Forward
  loss: Loss
  ascent: AscentSignal | None
  perturb: optax.GradientTransformationExtraArgs | None
  metrics: MetricsFn
  ascent_fraction: float
  reads_ascent: bool
  reads_clean: bool

  @property
  def signal(self) -> AscentSignal:
    return loss_ascent(self.loss) if self.ascent is None else self.ascent


def micro_batch_step(parts: Parts) -> MicroStep:
  """Makes the work on one micro-batch.

  Both passes share one dropout key; the model state advances in the clean pass.
  """
  forward, loss, signal = parts.forward, parts.loss, parts.signal
  ascent, perturb = parts.ascent, parts.perturb

  def step(
    state: TrainState, batch: Examples, index: int | Array, key: jax.Array
  ) -> MicroBatchResult:
    batch = finite_where_nothing_counts(batch)
    clean = first_examples(batch, parts.ascent_fraction)

    def outputs_fn(params: PyTree, examples: Examples) -> tuple[PyTree, PyTree]:
      arguments = params, state.model_state, examples.inputs
      return run_forward(forward, *arguments, train=True, key=key)

    def loss_fn(params: PyTree, examples: Examples = batch) -> Array:
      outputs, _ = outputs_fn(params, examples)
      return mean_loss(loss, outputs, examples.labels, examples.mask)

    def clean_pass(params: PyTree) -> tuple[PyTree, GradFn, PyTree]:
      return jax.vjp(lambda p: outputs_fn(p, clean), params, has_aux=True)

    def ascend(
      signal: AscentSignal, outputs: PyTree, pullback: GradFn
    ) -> PyTree:
      rest = clean.labels, clean.mask
      direction = ascent_direction(signal, "ascent", outputs, *rest)
      return conj(pullback(direction)[0])

    def ascent_fn(params: PyTree) -> PyTree:
      return ascend(signal, *clean_pass(params)[:2])

    def grad_fn(params: PyTree) -> PyTree:
      return conj(jax.grad(loss_fn)(params))

    def value_and_grad_fn(
      params: PyTree, examples: Examples = batch
    ) -> tuple[Array, PyTree]:
      value, grads = jax.value_and_grad(loss_fn)(params, examples)
      return value, conj(grads)

    def losses_fn(params: PyTree) -> Array:
      outputs, _ = outputs_fn(params, batch)
      return example_losses(loss, outputs, batch.labels, batch.mask)

    outputs, pullback, model_state = clean_pass(state.params)
    found: dict[str, Any] = clean_metrics(parts, outputs, clean)
    weights = None
    if batch.mask is not None:
      weights = Weights(total_weight(batch.mask), total_weight(clean.mask))
      model_state = kept_without_weight(model_state, state.model_state, weights)
    # Dead code, and compiled away, where the perturbation does not read it.
    ascent_grads = ascend(signal, outputs, pullback)
    if perturb is None:
      return MicroBatchResult(
        ascent_grads, found, model_state, state.perturb_state, weights
      )
    if parts.reads_ascent:
      found["ascent_grad_norm"] = tree_norm(ascent_grads)
    if parts.reads_clean:
      # Beside the metrics, which are means of the same examples.
      clean_grads = ascent_grads
      if ascent is not None:
        clean_grads = ascend(loss_ascent(loss), outputs, pullback)
      found["clean_grads"] = jax.tree.map(at_least_float32, clean_grads)
    # One function where the two are the same, so that one pass can do for both.
    same = ascent is None and clean is batch
    others: dict[str, Any] = {}
    if batch.previous is not None:
      others["previous_value_and_grad_fn"] = functools.partial(
        value_and_grad_fn, examples=batch.previous
      )
    grads, perturb_state = perturb.update(
      ascent_grads,
      state.perturb_state,
      state.params,
      grad_fn=grad_fn,
      value_and_grad_fn=value_and_grad_fn,
      ascent_fn=grad_fn if same else ascent_fn,
      losses_fn=losses_fn,
      micro_batch=index,
      opt_state=state.opt_state,
      **others,
    )
    return MicroBatchResult(grads, found, model_state, perturb_state, weights)

  return step


def clean_metrics(
  parts: Parts, outputs: PyTree, clean: Examples
) -> dict[str, Array]:
  """The loss and the task's metrics of a clean pass."""
  value = mean_loss(parts.loss, outputs, clean.labels, clean.mask)
  return {
    "loss": value.astype(jnp.float32),
    **mean_metrics(parts.metrics, outputs, clean.labels, clean.mask, OWN),
  }


def kept_without_weight(
  new: PyTree, old: PyTree, weights: Weights | None
) -> PyTree:
  """The new model state, but the old where no example counts."""
  if weights is None:
    return new
  return jax.tree.map(
    lambda n, o: jnp.where(weights.clean == 0, o, n), new, old
  )


def first_examples(batch: Examples, fraction: float) -> Examples:
  size = num_examples(batch)
  # Rounded first: 0.1 * 30 is a little more than 3.
  count = math.ceil(round(fraction * size, 6))
  if count == size:
    return batch
  return jax.tree.map(lambda x: x[: max(count, 1)], batch)


def read_examples(
  batch: Mapping[str, Any], inputs: str, labels: str
) -> Examples:
  """The parts of a batch by their keys, and those of the one before."""
  previous = batch.get("previous")
  if previous is not None:
    previous = Examples(previous[inputs], previous[labels], None)
  return Examples(batch[inputs], batch[labels], batch.get("mask"), previous)


def num_examples(batch: Examples) -> int:
  return len(jax.tree.leaves(batch)[0])


def total_weight(mask: NDArray | None) -> Array:
  assert mask is not None
  return jnp.sum(as_weights(mask, mask.shape)).astype(jnp.float32)


def finite_where_nothing_counts(batch: Examples) -> Examples:
  """Zeros for nan and inf where the weight is 0: 0 * nan is nan."""
  if batch.mask is None:
    return batch
  positions = jnp.asarray(batch.mask).astype(bool)
  examples = jnp.any(positions.reshape(len(positions), -1), axis=-1)

  def finite(x: NDArray, counts: Array = examples) -> NDArray:
    if not is_float(x):
      return x
    here = counts.reshape(*counts.shape, *[1] * (x.ndim - counts.ndim))
    return jnp.where(here | jnp.isfinite(x), x, 0)

  def finite_label(x: NDArray) -> NDArray:
    fits = x.shape[: positions.ndim] == positions.shape
    return finite(x, positions if fits else examples)

  return batch._replace(
    inputs=jax.tree.map(finite, batch.inputs),
    labels=jax.tree.map(finite_label, batch.labels),
  )
