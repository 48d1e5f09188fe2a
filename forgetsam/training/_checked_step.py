"""Jitted steps that first check what JAX's own errors would not name."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from forgetsam._labels import check_width
from forgetsam._typing import PyTree
from forgetsam.training._mesh import batch_shards
from forgetsam.training._train_state import TrainState
from forgetsam.training.factored import MSharpness


class CheckedStep:
  """A jitted step whose batch, the argument at `batch_at`, is checked first.

  Everything else, such as `lower`, is the jitted function's.
  """

  def __init__(
    self,
    jitted: Any,
    mesh: Mesh | None,
    batch_at: int,
    inputs: str = "image",
    labels: str = "label",
    *,
    groups: bool = False,
    previous: bool = False,
  ) -> None:
    _check_names(inputs, labels)
    self._jitted, self._mesh, self._batch_at = jitted, mesh, batch_at
    self._names, self._groups = (inputs, labels), groups
    self._previous = previous

  def __call__(self, *arguments: Any) -> Any:
    batch = arguments[self._batch_at]
    if self._groups and isinstance(batch, Mapping):
      batch = _without_groups(batch, self._names[1])
    if self._previous and isinstance(batch, Mapping):
      batch = _without_previous(batch, *self._names)
    check_batch(batch, self._mesh, *self._names)
    return self._jitted(*arguments)

  def __getattr__(self, name: str) -> Any:
    if name == "_jitted":  # a copy in the making has no attributes yet
      raise AttributeError(name)
    return getattr(self._jitted, name)


class TrainStep(CheckedStep):
  """A training step, `(state, batch, key) -> (state, metrics)`."""

  def __init__(
    self,
    jitted: Any,
    mesh: Mesh | None,
    inputs: str,
    labels: str,
    report: Callable[[TrainState, dict[str, Any]], MSharpness],
  ) -> None:
    super().__init__(jitted, mesh, 1, inputs, labels, previous=True)
    self._report = report

  def m_sharpness(self, state: TrainState, batch: dict[str, Any]) -> MSharpness:
    """How the step takes micro-batches of these shapes, and why.

    Arrays may be given by their `jax.ShapeDtypeStruct`.
    """
    return self._report(state, batch)


def is_group(name: str) -> bool:
  """Whether a key of a batch marks the examples of a group."""
  return name.startswith("group/")


def _without_groups(batch: Mapping[str, Any], labels: str) -> dict[str, Any]:
  """The batch without its groups, whose shapes are checked."""
  sizes = {np.shape(x)[:1] for x in jax.tree.leaves(batch.get(labels))}
  for name in filter(is_group, batch):
    if {np.shape(batch[name])} != sizes:
      raise ValueError(
        f'batch["{name}"] has the shape {np.shape(batch[name])}: it must be '
        f"one mark for each example, {', '.join(map(str, sorted(sizes)))}"
      )
  return {name: x for name, x in batch.items() if not is_group(name)}


def _without_previous(
  batch: Mapping[str, Any], inputs: str, labels: str
) -> dict[str, Any]:
  """The batch without the one before, which must have arrays like its own."""
  now = dict(batch)
  before = now.pop("previous", None)
  if before is None:
    return now
  own = {name: now.get(name) for name in (inputs, labels)}
  if jax.tree.map(np.shape, before) != jax.tree.map(np.shape, own):
    raise ValueError(
      'batch["previous"] must be the batch of the step before: '
      f"{inputs!r} and {labels!r} in the shapes of this one's"
    )
  if "mask" in now:
    raise ValueError(
      'the batch has "previous" and a "mask", which would weigh both batches: '
      "leave one out"
    )
  return now


def check_batch(
  batch: Any,
  mesh: Mesh | None,
  inputs: str = "image",
  labels: str = "label",
) -> None:
  """Raises a `ValueError` where a batch's arrays do not go together."""
  if not isinstance(batch, Mapping):
    raise ValueError(
      f"the batch is a {type(batch).__name__}: it must be a dictionary of "
      f"{inputs!r} and {labels!r}"
    )
  for name in (inputs, labels):
    if name not in batch:
      raise ValueError(f"the batch has no {name!r}, only {sorted(batch)}")
  if unread := sorted(set(batch) - {inputs, labels, "mask"}):
    raise ValueError(
      f"the batch has {unread}, which nothing reads: give it {inputs!r}, "
      f"{labels!r} and, for weights of examples, 'mask'"
    )
  shapes = _shapes(batch, labels, "with examples first")
  size = shapes[0][0]
  leaves = jax.tree.leaves(batch[inputs])
  if not leaves:
    raise ValueError(f'batch["{inputs}"] has no arrays')
  for leaf in leaves:
    if not np.ndim(leaf) or len(leaf) != size:
      have = len(leaf) if np.ndim(leaf) else "no"
      raise ValueError(
        f'batch["{inputs}"] has {have} examples and batch["{labels}"] {size}'
      )
  if size == 0:
    raise ValueError("the batch is empty")
  if "mask" in batch:
    content = "of weights [B] or of the labels' positions"
    if not isinstance(batch["mask"], (jax.Array, np.ndarray)):
      kind = _kind(batch["mask"])
      raise ValueError(
        f'batch["mask"] is a {kind}: it must be an array, {content}'
      )
    (mask,) = _shapes(batch, "mask", content)
    if all(mask != shape[: len(mask)] for shape in shapes):
      raise ValueError(
        f'batch["mask"] has the shape {mask} and batch["{labels}"] '
        f"{', '.join(map(str, shapes))}: weigh examples, ({size},), or the "
        "labels' positions"
      )
  if size % batch_shards(mesh):
    raise ValueError(
      f"the mesh's {batch_shards(mesh)} devices must divide the batch of {size}"
    )


def _shapes(
  batch: Mapping[str, PyTree], name: str, content: str
) -> list[tuple[int, ...]]:
  """The shapes of the arrays in a tree, which have examples first."""
  at, shapes = f'batch["{name}"]', []
  for leaf in jax.tree.leaves(batch[name]):
    if not isinstance(leaf, (jax.Array, np.ndarray)):
      kinds = " with a ".join(dict.fromkeys(map(_kind, (batch[name], leaf))))
      raise ValueError(f"{at} is a {kinds}: it must be an array, {content}")
    if not leaf.ndim:
      raise ValueError(f"{at} is one number: it must be an array, {content}")
    check_width(at, leaf)
    shapes.append(leaf.shape)
  if not shapes:
    raise ValueError(f"{at} has no arrays: it must have some, {content}")
  sizes = sorted({shape[0] for shape in shapes})
  if len(sizes) > 1:
    raise ValueError(
      f"{at} has arrays of {sizes} examples: all must be of the same"
    )
  return shapes


def _kind(x: Any) -> str:
  return type(x).__name__


def _check_names(inputs: str, labels: str) -> None:
  for argument, name in (("inputs", inputs), ("labels", labels)):
    if not isinstance(name, str) or name in ("mask", "previous"):
      raise ValueError(
        f"{argument}={name!r} must be the name of one key of the batch, which "
        "may hold any tree of arrays, and not 'mask', the weights, or "
        "'previous', the batch before; a loss that needs no labels may share "
        "the inputs'"
      )
