"""The jitted evaluation step: sums over the examples that count."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from forgetsam._labels import as_weights, with_targets
from forgetsam._objectives import mean_loss, run_forward
from forgetsam._typing import Forward, Loss, PyTree
from forgetsam.training._calibration import confidence_bins
from forgetsam.training._checked_step import CheckedStep, is_group
from forgetsam.training._mesh import (
  check_mesh,
  has_more_axes,
  replicated,
  split_batch,
)
from forgetsam.training._metrics import MetricsFn, mean_metrics
from forgetsam.training._placed_step import PlacedStep, gathering

EvalStep = Callable[[PyTree, PyTree, dict[str, Any]], dict[str, Array]]


def make_eval_step(
  forward: Forward,
  *,
  inputs: str = "image",
  labels: str = "label",
  loss: Loss | None = None,
  metrics: MetricsFn | None = None,
  classes: Sequence[int] | np.ndarray | Array | None = None,
  multi_label: bool = False,
  mesh: Mesh | None = None,
) -> EvalStep:
  r"""Builds the jitted evaluation of one padded batch.

  The target of the softmax cross-entropy is the label's distribution, scaled
  to sum to 1 over `classes`; with `multi_label` it is uniform over the right
  classes. The confidence of a prediction is the largest softmax probability
  :math:`p`, in the bin :math:`b` from 0 to 14 with
  :math:`b / 15 < p \le (b + 1) / 15`. Of equal logits the one of the lower
  class ranks first, on any number of devices.

  Args:
    forward: the model, as in `make_train_step`; it is run with `train=False`.
    inputs: the key of the batch that `forward` takes, as in `make_train_step`.
    labels: the key of the labels.
    loss: as in `make_train_step`; it and `metrics` take the place of all sums
      below but "count".
    metrics: as in `make_train_step`.
    classes: the classes that the set shows, such as ImageNet-R's 200, and which
      alone enter the sums; labels stay indices among all. `None` keeps all.
    multi_label: whether every class above zero in a label `[B, K]` is right, as
      in ImageNet-ReaL, or only the largest; the rest is smoothing or mixing.
    mesh: as in `make_train_step`; parameters lie as they are given.

  Returns:
    `eval_step(params, model_state, batch) -> sums`, where the batch has
    inputs `[B, ...]`, labels `[B]` or `[B, K]` and, where it is padded,
    "mask" `[B]` (1 for examples that count, 0 for padding); of logits with more
    axes, `[B, ..., K]`, each position counts as an example. Scalars: "loss"
    (softmax cross-entropy, whatever the training loss), "correct",
    "correct_top5" (a right class is among the five largest logits, or all
    where there are fewer) and "count". Per bin, `[15]`: "bin_count",
    "bin_confidence" and "bin_correct". An example without a right class among
    `classes`, or with a label that is no class at all, is wrong with an
    infinite loss. A key "group/NAME" `[B]` of the batch, 1 for the examples of
    a group, adds "group/NAME/count" and "group/NAME/correct". Add up over
    batches, then divide. With `loss` or `metrics`: each one's mean over the
    batch times "count", the sum of the mask's weights.

  Raises:
    ValueError: the mesh has no axis "data", or its devices do not divide a
      batch; `classes` are no distinct classes of the model; labels
      are `[B]` where `multi_label` wants `[B, K]`; `classes` or `multi_label`
      beside `loss` or `metrics`, or a metric named "loss" or "count".

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

  References:
    Guo et al., *On Calibration of Modern Neural Networks*, 2017, eq. (3).
    Beyer et al., *Are we done with ImageNet?*, 2020 (ReaL).
    Hendrycks et al., *The Many Faces of Robustness*, 2021 (ImageNet-R).
  """
  check_mesh(mesh)
  own = loss is not None or metrics is not None
  if own and (multi_label or classes is not None):
    raise ValueError(
      "classes and multi_label are of the scores that loss and metrics replace:"
      " leave them out, or these"
    )
  kept = None if classes is None else _check_classes(classes)

  def step(
    params: PyTree,
    model_state: PyTree,
    batch: dict[str, Any],
    placed: tuple[PyTree, PyTree] | None = None,
  ) -> dict[str, Array]:
    model = forward
    if placed is not None and mesh is not None:
      model = gathering(forward, placed[0], mesh)
    arguments = params, model_state, batch[inputs]
    logits, _ = run_forward(model, *arguments, train=False, key=None)
    mask = batch.get("mask")
    if own:
      return _sums_of(loss, metrics, logits, batch[labels], mask)
    logits, targets = with_targets(logits, batch[labels])
    if multi_label and batch[labels].ndim != logits.ndim:
      raise ValueError(
        f'batch["{labels}"] has the shape {batch[labels].shape}: multi_label'
        "=True needs [B, K], 1 for every right class"
      )
    counts = as_weights(
      jnp.ones(len(logits)) if mask is None else mask, logits.shape[:-1], "mask"
    )
    # Positions, where there are more axes, count as examples do.
    logits, targets = (x.reshape(-1, x.shape[-1]) for x in (logits, targets))
    if kept is not None:
      if kept[-1] >= logits.shape[-1]:
        raise ValueError(
          f"classes holds {kept[-1]}, and the model has the classes 0 to"
          f" {logits.shape[-1] - 1}"
        )
      logits, targets = logits[:, kept], targets[:, kept]
    if multi_label or kept is not None:
      total = jnp.sum(targets, axis=-1, keepdims=True)
      targets = targets / jnp.where(total > 0, total, 1)
    counts = counts.reshape(-1).astype(bool)
    groups = _groups(batch, len(counts))
    return _sums(logits, targets, counts, groups, multi_label=multi_label)

  shardings: dict[str, Any] = {}
  if mesh is not None:
    whole = replicated(mesh)
    at: Any = (whole, whole, split_batch(mesh))
    shardings = {"in_shardings": at, "out_shardings": whole}
  jitted: Any = jax.jit(step, **shardings)
  if has_more_axes(mesh):
    at = (None, None, split_batch(mesh))
    jitted = PlacedStep(step, mesh, 2, in_shardings=at, out_shardings=whole)
  return CheckedStep(jitted, mesh, 2, inputs, labels, groups=True)


def _groups(batch: dict[str, Any], size: int) -> dict[str, Bool[Array, " n"]]:
  """Whether each example, or each of its positions, is in each group."""
  marks = {name: batch[name] for name in filter(is_group, batch)}
  return {
    name: jnp.repeat(mark.astype(bool), size // len(mark))
    for name, mark in marks.items()
  }


def _sums_of(
  loss: Loss | None,
  metrics: MetricsFn | None,
  outputs: PyTree,
  labels: PyTree,
  mask: Any,
) -> dict[str, Array]:
  """Means of the examples that count, times their number."""
  count = jnp.float32(len(jax.tree.leaves(labels)[0]))
  if mask is not None:
    mask = as_weights(mask, mask.shape, "mask")
    count = mask.sum()
  means = {}
  if metrics is not None:
    means = mean_metrics(metrics, outputs, labels, mask, ("loss", "count"))
  if loss is not None:
    means["loss"] = mean_loss(loss, outputs, labels, mask).astype(jnp.float32)
  sums = {k: jnp.where(count == 0, 0, v * count) for k, v in means.items()}
  return sums | {"count": count}


def _first_right(
  logits: Float[Array, "batch classes"], right: Bool[Array, "batch classes"]
) -> Int[Array, " batch"]:
  """How many classes rank before every right one; K if none is right.

  Comparisons and sums alone: they fix the order of ties, and keep a batch that
  is split over devices where it is. What is not a number ranks first.
  """
  num_classes = logits.shape[-1]
  best = jnp.max(jnp.where(right, logits, -jnp.inf), axis=-1, keepdims=True)
  first = jnp.argmax(right & (logits == best), axis=-1, keepdims=True)
  not_before = (logits < best) | (
    (logits == best) & (jnp.arange(num_classes)[None] >= first)
  )
  return num_classes - jnp.sum(not_before, axis=-1)


def _sums(
  logits: Float[Array, "batch classes"],
  targets: Float[Array, "batch classes"],
  counts: Bool[Array, " batch"],
  groups: dict[str, Bool[Array, " batch"]],
  *,
  multi_label: bool,
) -> dict[str, Array]:
  right = targets > 0
  if not multi_label:
    largest = jnp.argmax(targets, axis=-1, keepdims=True)
    right &= jnp.arange(targets.shape[-1])[None] == largest
  loss = optax.softmax_cross_entropy(logits, targets)
  # The cross-entropy with an empty target would be 0: a perfect score.
  loss = jnp.where(jnp.any(right, axis=-1), loss, jnp.inf)
  rank = _first_right(logits, right)
  correct, top5 = rank < 1, rank < min(5, logits.shape[-1])
  confidence = jnp.max(jax.nn.softmax(logits), axis=-1)
  in_bin = confidence_bins(confidence) & counts[:, None]
  in_bins = jnp.where(in_bin, confidence[:, None], 0.0)
  return {
    "loss": jnp.sum(jnp.where(counts, loss, 0.0)),
    "correct": _number(counts & correct),
    "correct_top5": _number(counts & top5),
    "count": _number(counts),
    "bin_count": _number(in_bin),
    "bin_confidence": jnp.sum(in_bins, axis=0),
    "bin_correct": _number(in_bin & correct[:, None]),
    **{f"{name}/count": _number(counts & g) for name, g in groups.items()},
    **{
      f"{name}/correct": _number(counts & g & correct)
      for name, g in groups.items()
    },
  }


def _number(marked: Bool[Array, " batch *bins"]) -> Float[Array, " *bins"]:
  return jnp.sum(marked, axis=0, dtype=jnp.float32)


def _check_classes(classes: Any) -> Int[np.ndarray, " kept"]:
  array = np.asarray(classes)
  if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
    raise ValueError(
      f"classes has the shape {array.shape} and the dtype {array.dtype}: it"
      " must be one list of class indices, and not empty"
    )
  ordered, times = np.unique(array, return_counts=True)
  if np.any(times > 1) or np.any(ordered < 0):
    strange = ordered[(times > 1) | (ordered < 0)].tolist()
    raise ValueError(
      f"classes has {strange} more than once or below 0: it must hold each"
      " class index that occurs once"
    )
  return ordered
