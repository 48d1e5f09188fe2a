"""Jitted steps that first check what JAX's own errors would not name."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

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
  if not isinstance(batch["label"], (jax.Array, np.ndarray)):
    raise ValueError(
      f'batch["label"] is a {type(batch["label"]).__name__}: it must be an '
      "array, of class indices [B] or distributions [B, K]"
    )
  size = len(batch["label"])
  for leaf in jax.tree.leaves(batch["image"]):
    if len(leaf) != size:
      raise ValueError(
        f'batch["image"] has {len(leaf)} examples and batch["label"] {size}'
      )
  if size == 0:
    raise ValueError("the batch is empty")
  if mesh is not None and size % mesh.size:
    raise ValueError(
      f"the mesh's {mesh.size} devices must divide the batch of {size}"
    )
