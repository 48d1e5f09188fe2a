"""A jitted step that first checks what JAX's own errors would not name."""

from typing import Any

import jax
from jax.sharding import Mesh
from jaxtyping import Array

from forgetsam._train_state import TrainState

Metrics = dict[str, Array]


class CheckedStep:
  """The jitted training step, with the batch checked before JAX sees it.

  Everything else, such as `lower`, is the jitted function's.
  """

  def __init__(self, jitted: Any, mesh: Mesh | None) -> None:
    self._jitted, self._mesh = jitted, mesh

  def __call__(
    self, state: TrainState, batch: dict[str, Any], key: jax.Array
  ) -> tuple[TrainState, Metrics]:
    _check_batch(batch, self._mesh)
    return self._jitted(state, batch, key)

  def __getattr__(self, name: str) -> Any:
    return getattr(self._jitted, name)


def _check_batch(batch: dict[str, Any], mesh: Mesh | None) -> None:
  size = len(batch["label"])
  for leaf in jax.tree.leaves(batch["image"]):
    if len(leaf) != size:
      raise ValueError(
        f'batch["image"] has {len(leaf)} examples and batch["label"] {size}'
      )
  if mesh is not None and size % mesh.size:
    raise ValueError(
      f"the mesh's {mesh.size} devices must divide the batch of {size}"
    )
