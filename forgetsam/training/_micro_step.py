"""One micro-batch: the clean pass, its pullback, and the perturbed pass."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from forgetsam._arrays import tree_norm
from forgetsam._ascent import loss_ascent
from forgetsam._typing import AscentSignal, Forward, Loss, PyTree
from forgetsam.training._micro_batches import MicroBatchResult
from forgetsam.training._train_state import TrainState

# (params, micro-batch) -> (logits, model state)
LogitsFn = Callable[[PyTree, PyTree], tuple[Array, PyTree]]


class MicroStep:
  """The work on one micro-batch, as a function.

  Called with the model state, the micro-batch and its global index. Both
  passes share one dropout key; the model state advances in the clean pass.
  """

  def __init__(
    self,
    forward: Forward,
    loss: Loss,
    signal: AscentSignal | None,
    perturb: optax.GradientTransformationExtraArgs | None,
    reads_ascent: bool,
    ascent_fraction: float,
    state: TrainState,
    key: jax.Array,
  ) -> None:
    """Holds what all micro-batches of a step share.

    Args:
      forward: the model.
      loss: the training loss.
      signal: the ascent signal; `None` ascends the loss.
      perturb: a `perturbed_gradient`; `None` is plain training.
      reads_ascent: whether `perturb` depends on the ascent gradient's values.
      ascent_fraction: the share of a micro-batch, its first examples, that the
        clean pass and the ascent gradient take.
      state: the state before the step.
      key: the run's key.
    """
    self.forward, self.loss = forward, loss
    self.signal = loss_ascent(loss) if signal is None else signal
    self.ascends_loss = signal is None
    self.ascent_fraction = ascent_fraction
    self.perturb, self.reads_ascent = perturb, reads_ascent
    self.state = state
    self.step_key = jax.random.fold_in(key, state.step)

  def __call__(
    self, model_state: PyTree, batch: PyTree, index: int | Array
  ) -> MicroBatchResult:
    """Returns the gradient, the metrics and the new states."""
    dropout_key = jax.random.fold_in(self.step_key, index)

    def logits_fn(params: PyTree, examples: PyTree) -> tuple[Array, PyTree]:
      return self.forward(
        params, model_state, examples["image"], train=True, key=dropout_key
      )

    part = self._ascending_part(batch)
    logits, pullback, new_model_state = jax.vjp(
      lambda params: logits_fn(params, part), self.state.params, has_aux=True
    )
    labels = part["label"]
    metrics = {
      "loss": self.loss(logits, labels).astype(jnp.float32),
      "accuracy": _accuracy(logits, labels),
    }
    if self.perturb is None:
      (grads,) = pullback(loss_ascent(self.loss)(logits, labels))
      perturb_state = self.state.perturb_state
    else:
      # Dead code, and compiled away, where the perturbation does not read it.
      (ascent_grads,) = pullback(self.signal(logits, labels))
      if self.reads_ascent:
        metrics["ascent_grad_norm"] = tree_norm(ascent_grads)
      grads, perturb_state = self.perturb.update(
        ascent_grads,
        self.state.perturb_state,
        self.state.params,
        **self._gradient_functions(logits_fn, batch, part),
        micro_batch=index,
        opt_state=self.state.opt_state,
      )
    return MicroBatchResult(grads, metrics, new_model_state, perturb_state)

  def _ascending_part(self, batch: PyTree) -> PyTree:
    """The first examples, at least one, that the clean pass takes."""
    size = len(batch["label"])
    # Rounded first: 0.1 * 30 is a little more than 3.
    count = math.ceil(round(self.ascent_fraction * size, 6))
    if count == size:
      return batch
    return jax.tree.map(lambda x: x[: max(count, 1)], batch)

  def _gradient_functions(
    self, logits_fn: LogitsFn, batch: PyTree, part: PyTree
  ) -> dict[str, Callable[[PyTree], Any]]:
    """What a perturbed gradient may evaluate, at any point."""

    def loss_fn(params: PyTree) -> Array:
      return self.loss(logits_fn(params, batch)[0], batch["label"])

    def ascent_fn(params: PyTree) -> PyTree:
      logits, pullback, _ = jax.vjp(
        lambda p: logits_fn(p, part), params, has_aux=True
      )
      return pullback(self.signal(logits, part["label"]))[0]

    grad_fn = jax.grad(loss_fn)
    # One function where the two are the same, so that one pass can do for both.
    same = self.ascends_loss and part is batch
    return {
      "grad_fn": grad_fn,
      "value_and_grad_fn": jax.value_and_grad(loss_fn),
      "ascent_fn": grad_fn if same else ascent_fn,
    }


def _accuracy(logits: Array, labels: Array) -> Array:
  classes = labels if labels.ndim == 1 else jnp.argmax(labels, axis=-1)
  return jnp.mean(jnp.argmax(logits, axis=-1) == classes, dtype=jnp.float32)
