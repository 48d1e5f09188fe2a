"""Host copies of trees, and their SHA-256, which exposes damaged files."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from forgetsam.experiment.run._processes import gathered
from forgetsam.experiment.run._workdir import CheckpointError
from forgetsam.training import place

_RECORD_KEY = "record_sha256"


def to_host(tree: Any) -> Any:
  """Copies leaves to NumPy, typed keys as words; all processes call it."""

  def copy(leaf: Any) -> np.ndarray:
    leaf = gathered(leaf)
    if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(
      leaf.dtype, jax.dtypes.prng_key
    ):
      leaf = jax.random.key_data(leaf)
    return np.array(leaf, copy=True)

  return jax.tree.map(copy, tree)


def place_like(arrays: Any, like: Any) -> Any:
  """Copies restored arrays to the devices, placed as `like` is.

  The copies are complete: what held the arrays may be written over.
  """

  def own(array: Any, leaf: jax.Array) -> jax.Array:
    if not leaf.sharding.is_fully_replicated:
      return _in_parts(array, leaf.sharding)
    # A device may share NumPy's memory; a donated buffer must be its own.
    restored = jnp.array(array, copy=True)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      impl = jax.random.key_impl(leaf)
      return jax.random.wrap_key_data(restored, impl=impl)
    return restored

  shardings = jax.tree.map(lambda leaf: leaf.sharding, like)
  placed = place(jax.tree.map(own, arrays, like), shardings)
  return jax.block_until_ready(placed)


def _in_parts(array: Any, sharding: jax.sharding.Sharding) -> jax.Array:
  """Copies to each device what it is to hold: none might hold the whole."""
  host = np.asarray(array)
  parts = jax.make_array_from_callback(host.shape, sharding, lambda i: host[i])
  return jnp.array(parts, copy=True) if parts.is_fully_addressable else parts


def _digest(leaf: np.ndarray) -> "hashlib._Hash":
  digest = hashlib.sha256(f"{leaf.dtype.name}{leaf.shape}".encode())
  digest.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
  return digest


def leaf_checksums(tree: Any) -> dict[str, str]:
  """SHA-256 of every leaf (dtype, shape and bytes) by its path."""
  leaves = jax.tree.leaves_with_path(to_host(tree))
  return {jax.tree_util.keystr(p): _digest(x).hexdigest() for p, x in leaves}


def tree_sha256(tree: Any) -> str:
  """SHA-256 over the leaves in tree order: dtype, shape and bytes of each.

  Args:
    tree: a tree of arrays, such as a model's parameters.

  Returns:
    64 hexadecimal digits; equal for trees that agree in every bit.

  Example:
    >>> a = {"w": np.zeros(2, np.float32)}
    >>> b = {"w": np.array([0.0, -0.0], np.float32)}
    >>> tree_sha256(a) == tree_sha256(a), tree_sha256(a) == tree_sha256(b)
    (True, False)
  """
  digest = hashlib.sha256()
  for leaf in jax.tree.leaves(to_host(tree)):
    digest.update(_digest(leaf).digest())
  return digest.hexdigest()


def add_checksum(record: Mapping[str, Any]) -> dict[str, Any]:
  return {**record, _RECORD_KEY: _record_sha256(record)}


def verify_record(record: Mapping[str, Any]) -> dict[str, Any]:
  """Compares a record with its checksum, and returns it without."""
  rest = dict(record)
  # Records of older versions have none.
  if rest.pop(_RECORD_KEY, None) not in (None, _record_sha256(rest)):
    raise CheckpointError("the record differs from its checksum")
  return rest


def _record_sha256(record: Mapping[str, Any]) -> str:
  text = json.dumps(record, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()
