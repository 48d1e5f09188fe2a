"""Messages between the processes of one run, outside of its steps.

Process 0 alone reads and writes the run's folder, and sends the others what it
finds there and its errors, so that all go on or end alike.
"""

import functools
import itertools
import pickle
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding

from forgetsam._typing import PyTree
from forgetsam.training import replicated

T = TypeVar("T")

# Until a process dies, which ends all: process 0 may save for minutes.
_TIMEOUT_MS = 24 * 3600 * 1000
_CHUNK = 2**26  # bytes on every device while arrays are sent

_numbers = itertools.count()


def is_main() -> bool:
  """True in process 0, which reads and writes the run's folder."""
  return jax.process_index() == 0


def process_shard() -> tuple[int, int]:
  """(index, count): this process's part of every batch."""
  return jax.process_index(), jax.process_count()


def num_devices() -> int:
  """Devices of all processes."""
  return jax.process_count() * jax.local_device_count()


def on_main(function: Callable[[], T]) -> T:
  """Calls a function in process 0; every process returns or raises the same.

  All processes must call this in the same order. The others wait.

  Args:
    function: what to call in process 0. Its result must pickle.
  """
  if jax.process_count() == 1:
    return function()
  # JAX offers its processes' key-value store to libraries only.
  from jax._src import distributed

  store: Any = distributed.global_state.client
  key = f"forgetsam/{next(_numbers)}"
  if is_main():
    try:
      answer: tuple[Any, Exception | None] = function(), None
    except Exception as error:  # all are to end as this process does
      answer = None, error
    store.key_value_set_bytes(key, _pickled(answer))
  else:
    sent = store.blocking_key_value_get_bytes(key, _TIMEOUT_MS)
    answer = pickle.loads(sent)
  result, failure = answer
  if failure is not None:
    raise failure
  return result


def _pickled(answer: tuple[Any, Exception | None]) -> bytes:
  try:
    sent = pickle.dumps(answer)
    pickle.loads(sent)  # some exceptions can only be written
  except Exception:
    if answer[1] is None:
      raise
    text = f"{type(answer[1]).__name__}: {answer[1]}"
    sent = pickle.dumps((None, RuntimeError(text)))
  return sent


def from_main(arrays: PyTree, like: PyTree) -> PyTree:
  """Sends process 0's NumPy arrays, shaped `like` this, to every process."""
  if jax.process_count() == 1:
    return arrays
  shapes, structure = jax.tree.flatten(like)
  sizes = [int(np.prod(x.shape)) * np.dtype(x.dtype).itemsize for x in shapes]
  buffer = np.zeros(sum(sizes), np.uint8)
  ends = np.cumsum(sizes)
  if is_main():
    # As bytes: the sum over processes that JAX sends with loses -0.0.
    for array, end in zip(jax.tree.leaves(arrays), ends, strict=True):
      flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
      buffer[end - flat.size : end] = flat
  chunk = min(_CHUNK, buffer.size)
  for start in range(0, buffer.size, chunk or 1):
    part = np.zeros(chunk, np.uint8)
    here = buffer[start : start + chunk]
    part[: here.size] = here
    here[:] = multihost_utils.broadcast_one_to_all(part)[: here.size]
  received = [
    buffer[end - size : end].view(x.dtype).reshape(x.shape)
    for x, size, end in zip(shapes, sizes, ends, strict=True)
  ]
  return jax.tree.unflatten(structure, received)


def gathered(leaf: Any) -> Any:
  """A whole array where processes hold parts of it; all must ask together."""
  whole = not isinstance(leaf, jax.Array) or leaf.is_fully_addressable
  if whole or leaf.is_fully_replicated:
    return leaf
  mesh = getattr(leaf.sharding, "mesh", None)
  assert isinstance(mesh, Mesh)
  return _copied(replicated(mesh))(leaf)


@functools.cache
def _copied(sharding: NamedSharding) -> Callable[[jax.Array], jax.Array]:
  return jax.jit(lambda array: array, out_shardings=sharding)
