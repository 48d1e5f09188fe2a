"""One micro-batch: the clean pass, its pullback, and the perturbed pass."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from forgetsam._ascent import loss_ascent
from forgetsam._inspection import Reads
from forgetsam._micro_batches import MicroBatchResult, MicroStep
from forgetsam._norms import tree_norm
from forgetsam._train_state import TrainState
from forgetsam._typing import AscentSignal, Forward, Loss, PyTree


def make_micro_step(
  forward: Forward,
  loss: Loss,
  signal: AscentSignal,
  perturb: optax.GradientTransformationExtraArgs | None,
  state: TrainState,
  key: jax.Array,
  reads: Reads | None,
) -> MicroStep:
  """Builds the work on one micro-batch: two passes that share a dropout key.

  Args:
    forward: the model.
    loss: the training loss.
    signal: the ascent signal.
    perturb: a `perturbed_gradient`; `None` is plain training.
    state: the state before the step.
    key: the run's key.
    reads: what `perturb` depends on.

  Returns:
    A function of the model state, the micro-batch and its global index.
  """
  step_key = jax.random.fold_in(key, state.step)

  def micro_step(
    model_state: PyTree, batch: PyTree, index: int | Array
  ) -> MicroBatchResult:
    labels = batch["label"]
    dropout_key = jax.random.fold_in(step_key, index)

    def logits_fn(params: PyTree) -> tuple[Array, PyTree]:
      return forward(
        params, model_state, batch["image"], train=True, key=dropout_key
      )

    def loss_fn(params: PyTree) -> Array:
      return loss(logits_fn(params)[0], labels)

    def ascent_fn(params: PyTree) -> PyTree:
      logits, pullback, _ = jax.vjp(logits_fn, params, has_aux=True)
      return pullback(signal(logits, labels))[0]

    logits, pullback, new_model_state = jax.vjp(
      logits_fn, state.params, has_aux=True
    )
    metrics = {
      "loss": loss(logits, labels).astype(jnp.float32),
      "accuracy": _accuracy(logits, labels),
    }
    if perturb is None:
      (grads,) = pullback(loss_ascent(loss)(logits, labels))
      perturb_state = state.perturb_state
    else:
      (ascent_grads,) = pullback(signal(logits, labels))
      value_and_grad_fn = jax.value_and_grad(loss_fn)
      grads, perturb_state = perturb.update(
        ascent_grads,
        state.perturb_state,
        state.params,
        grad_fn=jax.grad(loss_fn),
        value_and_grad_fn=value_and_grad_fn,
        ascent_fn=ascent_fn,
        micro_batch=index,
        opt_state=state.opt_state,
      )
      if reads is not None and reads.ascent_gradient:
        metrics["ascent_grad_norm"] = tree_norm(ascent_grads)
    return MicroBatchResult(grads, metrics, new_model_state, perturb_state)

  return micro_step


def _accuracy(logits: Array, labels: Array) -> Array:
  classes = labels if labels.ndim == 1 else jnp.argmax(labels, axis=-1)
  return jnp.mean(jnp.argmax(logits, axis=-1) == classes, dtype=jnp.float32)
