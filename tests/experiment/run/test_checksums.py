"""Hashes see every bit, every dtype and every shape."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from forgetsam.experiment.run import leaf_checksums, tree_sha256
from forgetsam.experiment.run._checksums import place_like, to_host


def test_sha256_is_of_dtype_shape_and_bytes_in_tree_order():
  tree = {"b": np.arange(2, dtype=np.int32), "a": np.zeros((1, 3), np.float32)}
  one = hashlib.sha256(b"float32(1, 3)" + bytes(12)).digest()
  two = hashlib.sha256(b"int32(2,)" + b"\0\0\0\0\1\0\0\0").digest()
  assert tree_sha256(tree) == hashlib.sha256(one + two).hexdigest()


def test_sha256_tells_apart_what_compares_equal():
  zero = np.zeros((2, 2), np.float32)
  others = [
    -zero,
    zero.astype(np.float16),
    zero.reshape(4),
    zero.reshape(1, 4),
    zero.view(np.int32),
  ]
  hashes = {tree_sha256([x]) for x in [zero, *others]}
  assert len(hashes) == 6


def test_host_copies_share_no_memory():
  x = np.ones(3)
  copy = to_host({"x": x})["x"]
  x[0] = 7
  assert copy[0] == 1


def test_typed_keys_and_bfloat16_have_checksums():
  tree = {"k": jax.random.key(3), "w": jnp.ones(2, jnp.bfloat16)}
  again = {"k": jax.random.key(4), "w": jnp.ones(2, jnp.bfloat16)}
  a, b = leaf_checksums(tree), leaf_checksums(again)
  assert a["['w']"] == b["['w']"]
  assert a["['k']"] != b["['k']"]


def test_arrays_come_back_in_parts():
  """Each device gets its part, in memory that is not the file's reader's."""
  mesh = jax.make_mesh(
    (jax.device_count(),), ("fsdp",), axis_types=(AxisType.Auto,)
  )
  at = NamedSharding(mesh, PartitionSpec("fsdp"))
  read = np.arange(16.0 * jax.device_count(), dtype=np.float32)
  like = jax.device_put(jnp.zeros(read.shape), at)
  restored = place_like({"w": read}, {"w": like})["w"]
  assert restored.sharding == at
  expected = read.copy()
  read[:] = -1
  np.testing.assert_array_equal(restored, expected)
