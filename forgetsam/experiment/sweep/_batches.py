"""A run's training batches, an epoch or a part of it at a time."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from ml_collections import config_dict

from forgetsam import data

# Of the images that are copied to the device at once.
_MOST_BYTES = 2**28


class RunBatches:
  """The main job's batches, ready for a loop on the device.

  Without augmentation the split is copied to the device once, and a run needs
  the positions of its examples alone.
  """

  def __init__(self, config: config_dict.ConfigDict, split: data.Split):
    options = config.data
    self._split, self._batch_size = split, config.batch_size
    self._normal = {"mean": options.mean, "std": options.std}
    self._augment = {"flip": options.flip, "crop_padding": options.crop_padding}
    self._gathers = not any(self._augment.values())
    self._positions: dict[tuple[int, int], np.ndarray] = {}
    self.resident: dict[str, Array] = {}
    if self._gathers:
      (batch,) = data.eval_batches(split, batch_size=len(split), **self._normal)
      self.resident = {k: jnp.asarray(batch[k]) for k in ("image", "label")}

  def steps_at_once(self, steps_per_epoch: int) -> int:
    """The largest part of an epoch that fits, of those that divide it."""
    one = 4 * self._split.images[0].size * self._batch_size
    most = steps_per_epoch if self._gathers else max(1, _MOST_BYTES // one)
    parts = range(1, min(most, steps_per_epoch) + 1)
    return max(n for n in parts if steps_per_epoch % n == 0)

  def chunks(self, seed: int, num_steps: int, size: int) -> Iterator[Any]:
    """Yields the inputs of the device loop, `size` steps at a time."""
    if self._gathers:
      positions = self._all_positions(seed, num_steps)
      yield from positions.reshape(-1, size, self._batch_size)
      return
    batches = data.train_batches(
      self._split,
      batch_size=self._batch_size,
      seed=seed,
      num_steps=num_steps,
      **self._normal,
      **self._augment,
    )
    for _ in range(num_steps // size):
      steps = [next(batches) for _ in range(size)]
      yield jax.tree.map(lambda *xs: np.stack(xs), *steps)

  def _all_positions(self, seed: int, num_steps: int) -> np.ndarray:
    """Where in the split each step finds its examples."""
    key = seed, num_steps
    if key not in self._positions:
      self._positions[key] = data.train_positions(
        len(self._split),
        batch_size=self._batch_size,
        seed=seed,
        start_step=0,
        num_steps=num_steps,
      ).astype(np.int32)
    return self._positions[key]


def read_batch(resident: dict[str, Array], x: Any) -> dict[str, Array]:
  """One step's batch, of what `RunBatches` keeps and what it yields."""
  if not resident:
    return dict(x)
  return {name: array[x] for name, array in resident.items()}
