"""Host copies of trees, and SHA-256 of them: they expose damaged files."""

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
  """Copies of a tree's leaves as NumPy arrays; typed keys as their words.

  Where processes hold parts of arrays, all must call this together.
  """

  def copy(leaf: Any) -> np.ndarray:
    leaf = gathered(leaf)
    if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(
      leaf.dtype, jax.dtypes.prng_key
    ):
      leaf = jax.random.key_data(leaf)
    return np.array(leaf, copy=True)

  return jax.tree.map(copy, tree)


def place_like(arrays: Any, like: Any) -> Any:
  """The devices' own copies of restored arrays, placed as `like` is."""

  def own(array: Any, leaf: jax.Array) -> jax.Array:
    # A device may share NumPy's memory; a donated buffer must be its own.
    restored = jnp.array(array, copy=True)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      restored = jax.random.wrap_key_data(
        restored, impl=jax.random.key_impl(leaf)
      )
    return restored

  shardings = jax.tree.map(lambda leaf: leaf.sharding, like)
  return place(jax.tree.map(own, arrays, like), shardings)


def _digest(leaf: np.ndarray) -> "hashlib._Hash":
  digest = hashlib.sha256(f"{leaf.dtype.name}{leaf.shape}".encode())
  digest.update(np.ascontiguousarray(leaf).tobytes())
  return digest


def leaf_checksums(tree: Any) -> dict[str, str]:
  """SHA-256 of every leaf (dtype, shape and bytes) by its path."""
  leaves = jax.tree_util.tree_leaves_with_path(to_host(tree))
  return {
    jax.tree_util.keystr(path): _digest(leaf).hexdigest()
    for path, leaf in leaves
  }


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
  """The record with a checksum of itself."""
  return {**record, _RECORD_KEY: _record_sha256(record)}


def verify_record(record: Mapping[str, Any]) -> dict[str, Any]:
  """The record without its checksum.

  Raises:
    CheckpointError: they do not belong together.
  """
  rest = dict(record)
  # Records of older versions have none.
  if rest.pop(_RECORD_KEY, None) not in (None, _record_sha256(rest)):
    raise CheckpointError("the record differs from its checksum")
  return rest


def _record_sha256(record: Mapping[str, Any]) -> str:
  text = json.dumps(record, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()
