"""One micro-batch: the clean pass, its pullback, and the perturbed pass."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from forgetsam._ascent import loss_ascent
from forgetsam._micro_batches import MicroBatchResult
from forgetsam._norms import tree_norm
from forgetsam._train_state import TrainState
from forgetsam._typing import AscentSignal, Forward, Loss, PyTree

LogitsFn = Callable[[PyTree], tuple[Array, PyTree]]


class MicroStep:
  """The work on one micro-batch, as a function.

  Called with the model state, the micro-batch and its global index. Both
  passes share one dropout key; the model state advances in the clean pass.
  """

  def __init__(
    self,
    forward: Forward,
    loss: Loss,
    signal: AscentSignal,
    perturb: optax.GradientTransformationExtraArgs | None,
    reads_ascent: bool,
    state: TrainState,
    key: jax.Array,
  ) -> None:
    """Holds what all micro-batches of a step share.

    Args:
      forward: the model.
      loss: the training loss.
      signal: the ascent signal.
      perturb: a `perturbed_gradient`; `None` is plain training.
      reads_ascent: whether `perturb` depends on the ascent gradient's values.
      state: the state before the step.
      key: the run's key.
    """
    self.forward, self.loss, self.signal = forward, loss, signal
    self.perturb, self.reads_ascent = perturb, reads_ascent
    self.state = state
    self.step_key = jax.random.fold_in(key, state.step)

  def __call__(
    self, model_state: PyTree, batch: PyTree, index: int | Array
  ) -> MicroBatchResult:
    """Returns the gradient, the metrics and the new states."""
    labels = batch["label"]
    dropout_key = jax.random.fold_in(self.step_key, index)

    def logits_fn(params: PyTree) -> tuple[Array, PyTree]:
      return self.forward(
        params, model_state, batch["image"], train=True, key=dropout_key
      )

    logits, pullback, new_model_state = jax.vjp(
      logits_fn, self.state.params, has_aux=True
    )
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
        **self._gradient_functions(logits_fn, labels),
        micro_batch=index,
        opt_state=self.state.opt_state,
      )
    return MicroBatchResult(grads, metrics, new_model_state, perturb_state)

  def _gradient_functions(
    self, logits_fn: LogitsFn, labels: Array
  ) -> dict[str, Callable[[PyTree], Any]]:
    """What a perturbed gradient may evaluate, at any point."""

    def loss_fn(params: PyTree) -> Array:
      return self.loss(logits_fn(params)[0], labels)

    def ascent_fn(params: PyTree) -> PyTree:
      logits, pullback, _ = jax.vjp(logits_fn, params, has_aux=True)
      return pullback(self.signal(logits, labels))[0]

    return {
      "grad_fn": jax.grad(loss_fn),
      "value_and_grad_fn": jax.value_and_grad(loss_fn),
      "ascent_fn": ascent_fn,
    }


def _accuracy(logits: Array, labels: Array) -> Array:
  classes = labels if labels.ndim == 1 else jnp.argmax(labels, axis=-1)
  return jnp.mean(jnp.argmax(logits, axis=-1) == classes, dtype=jnp.float32)
