"""The jitted evaluation step: sums over the examples that count."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array

from forgetsam._checked_step import CheckedStep
from forgetsam._losses import target_distribution
from forgetsam._mesh import check_mesh, replicated, split_batch
from forgetsam._norms import at_least_float32
from forgetsam._typing import Forward, PyTree

EvalStep = Callable[[PyTree, PyTree, dict[str, Array]], dict[str, Array]]


def make_eval_step(forward: Forward, *, mesh: Mesh | None = None) -> EvalStep:
  r"""Builds the jitted evaluation of one padded batch.

  Args:
    forward: the model, as in `make_train_step`; it is run with `train=False`.
    mesh: a mesh with the one axis "data", whose size divides the batch; `None`
      runs on the default device.

  Returns:
    `eval_step(params, model_state, batch) -> sums`, where the batch has
    "image" `[B, ...]`, "label" `[B]` or `[B, K]` and, where it is padded,
    "mask" `[B]` (1 for examples that count, 0 for padding). The sums are
    scalars: "loss" (softmax cross-entropy, whatever the training loss),
    "correct" and "count". Divide by the total count after adding batches up.

  Raises:
    ValueError: the mesh has other axes than "data", or its devices do not
      divide a batch.

  Example:
    >>> def forward(params, model_state, images, *, train, key):
    ...   return images @ params, model_state
    >>> batch = {
    ...   "image": jnp.eye(2), "label": jnp.array([0, 0]),
    ...   "mask": jnp.array([1.0, 0.0]),
    ... }
    >>> sums = make_eval_step(forward)(jnp.eye(2), {}, batch)
    >>> float(sums["correct"]), float(sums["count"])
    (1.0, 1.0)
  """
  check_mesh(mesh)

  def step(
    params: PyTree, model_state: PyTree, batch: dict[str, Array]
  ) -> dict[str, Array]:
    logits, _ = forward(
      params, model_state, batch["image"], train=False, key=None
    )
    logits = at_least_float32(logits)
    targets = target_distribution(
      batch["label"], logits.shape[-1], logits.dtype
    )
    loss = optax.softmax_cross_entropy(logits, targets)
    correct = jnp.argmax(logits, axis=-1) == jnp.argmax(targets, axis=-1)
    counts = batch.get("mask", jnp.ones(len(logits))).astype(bool)
    return {
      "loss": jnp.sum(jnp.where(counts, loss, 0.0)),
      "correct": jnp.sum(counts & correct, dtype=jnp.float32),
      "count": jnp.sum(counts, dtype=jnp.float32),
    }

  if mesh is None:
    return CheckedStep(jax.jit(step), mesh, batch_at=2)
  whole = replicated(mesh)
  jitted = jax.jit(
    step,
    in_shardings=(whole, whole, split_batch(mesh)),
    out_shardings=whole,
  )
  return CheckedStep(jitted, mesh, batch_at=2)
