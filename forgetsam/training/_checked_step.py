"""Jitted steps that first check what JAX's own errors would not name."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from forgetsam._labels import check_width
from forgetsam._typing import PyTree


class CheckedStep:
  """A jitted step whose batch, the argument at `batch_at`, is checked first.

  Everything else, such as `lower`, is the jitted function's.
  """

  def __init__(self, jitted: Any, mesh: Mesh | None, batch_at: int) -> None:
    self._jitted, self._mesh, self._batch_at = jitted, mesh, batch_at

  def __call__(self, *arguments: Any) -> Any:
    check_batch(arguments[self._batch_at], self._mesh)
    return self._jitted(*arguments)

  def __getattr__(self, name: str) -> Any:
    if name == "_jitted":  # a copy in the making has no attributes yet
      raise AttributeError(name)
    return getattr(self._jitted, name)


def check_batch(batch: dict[str, PyTree], mesh: Mesh | None) -> None:
  """Raises a `ValueError` where a batch's arrays do not go together."""
  for name in ("image", "label"):
    if name not in batch:
      raise ValueError(f"the batch has no {name!r}, only {sorted(batch)}")
  if unread := sorted(set(batch) - {"image", "label", "mask"}):
    raise ValueError(
      f"the batch has {unread}, which nothing reads: give it 'image', 'label' "
      "and, for weights of examples, 'mask'"
    )
  _check_array(batch, "label", "of class indices [B] or distributions [B, K]")
  check_width('batch["label"]', batch["label"])
  shape = batch["label"].shape
  size = shape[0]
  for leaf in jax.tree.leaves(batch["image"]):
    if not np.ndim(leaf) or len(leaf) != size:
      have = len(leaf) if np.ndim(leaf) else "no"
      raise ValueError(
        f'batch["image"] has {have} examples and batch["label"] {size}'
      )
  if size == 0:
    raise ValueError("the batch is empty")
  if "mask" in batch:
    _check_array(batch, "mask", "of weights [B] or of the labels' positions")
    mask = batch["mask"]
    if mask.shape != shape[: mask.ndim]:
      raise ValueError(
        f'batch["mask"] has the shape {mask.shape} and batch["label"] {shape}: '
        f"weigh examples, {shape[:1]}, or the labels' positions"
      )
  if mesh is not None and size % mesh.size:
    raise ValueError(
      f"the mesh's {mesh.size} devices must divide the batch of {size}"
    )


def _check_array(batch: dict[str, PyTree], name: str, content: str) -> None:
  array = batch[name]
  if not isinstance(array, (jax.Array, np.ndarray)):
    raise ValueError(
      f'batch["{name}"] is a {type(array).__name__}: it must be an array, '
      f"{content}"
    )
  if not array.ndim:
    raise ValueError(f'batch["{name}"] is one number: it must be {content}')
