"""Batches reach the devices early, whole and in order."""

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from meshes import data_mesh

from forgetsam import data


def numbered(count, pulled=None):
  for i in range(count):
    if pulled is not None:
      pulled.append(i)
    yield {
      "image": np.full((8, 2, 2, 1), i, np.float32)
      + np.arange(8)[:, None, None, None].astype(np.float32),
      "label": np.arange(8, dtype=np.int32) + i,
    }


@pytest.fixture
def sharding():
  mesh = data_mesh(8)
  return NamedSharding(mesh, PartitionSpec("data"))


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 4])
def test_same_batches_in_order(size, count):
  on_device = list(data.prefetch_to_device(numbered(count), size=size))
  assert len(on_device) == count
  for batch, expected in zip(on_device, numbered(count), strict=True):
    assert all(isinstance(leaf, jax.Array) for leaf in batch.values())
    for key, value in expected.items():
      np.testing.assert_array_equal(batch[key], value)
      assert batch[key].dtype == value.dtype


@pytest.mark.parametrize("size", [1, 2, 3])
def test_size_batches_are_on_the_devices(size):
  pulled = []
  prefetched = data.prefetch_to_device(numbered(9, pulled), size=size)
  for used in range(1, 5):
    next(prefetched)
    # The one in use, and size - 1 that wait.
    assert len(pulled) == used + size - 1


def test_shards_lie_on_their_devices(sharding):
  batches = list(data.prefetch_to_device(numbered(3), sharding))
  assert len(batches) == 3
  for i, batch in enumerate(batches):
    for leaf in batch.values():
      assert leaf.sharding == sharding
      assert len(leaf.addressable_shards) == 8
    for shard in batch["label"].addressable_shards:
      [row] = range(8)[shard.index[0]]
      np.testing.assert_array_equal(shard.data, [row + i])
    np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], np.arange(8) + i)


def test_batch_that_the_devices_do_not_divide(sharding):
  odd = iter([{"label": np.zeros(12, np.int32)}])
  with pytest.raises(ValueError, match="dimension size is 12"):
    next(data.prefetch_to_device(odd, sharding))


def test_size_zero():
  with pytest.raises(ValueError, match="size=0"):
    data.prefetch_to_device(numbered(1), size=0)


def test_training_batches_over_the_mesh(numbered_split, sharding):
  options = {"batch_size": 16, "seed": 0, "mean": 0.0, "std": 1.0}
  split = numbered_split(24)
  on_host = data.train_batches(split, num_steps=3, **options)
  on_mesh = data.prefetch_to_device(
    data.train_batches(split, num_steps=3, **options), sharding
  )
  for host, device in zip(on_host, on_mesh, strict=True):
    for key in host:
      np.testing.assert_array_equal(device[key], host[key])
