"""Batches that wait on the devices before they are needed."""

import collections
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding


def prefetch_to_device(
  iterator: Iterable[dict[str, np.ndarray]],
  sharding: NamedSharding | None = None,
  size: int = 2,
) -> Iterator[dict[str, jax.Array]]:
  """Copies batches to the devices before they are asked for.

  Args:
    iterator: host batches. With several processes, each process's own
      consecutive part of a batch.
    sharding: how a batch lies on the mesh; None puts it on the default device.
    size: batches on the devices at once, the one in use included; each costs
      its memory there. 1 copies only when asked.

  Returns:
    An iterator over the same batches on the devices.

  Raises:
    ValueError: if `size` is below 1; while iterating, if a batch cannot be
      divided over the devices.
  """
  if size < 1:
    raise ValueError(f"size={size} must be at least 1")
  return _prefetch(iter(iterator), sharding, size)


def _prefetch(
  iterator: Iterator[dict[str, np.ndarray]],
  sharding: NamedSharding | None,
  size: int,
) -> Iterator[dict[str, jax.Array]]:
  def put(array: np.ndarray) -> Any:
    if sharding is None:
      return jax.device_put(array)
    # In one process the same as device_put; in several, each gives its part.
    return jax.make_array_from_process_local_data(sharding, array)

  waiting: collections.deque[dict[str, jax.Array]] = collections.deque()
  while True:
    for batch in itertools.islice(iterator, size - len(waiting)):
      waiting.append({name: put(array) for name, array in batch.items()})
    if not waiting:
      return
    yield waiting.popleft()
