"""A batch's examples are known by their positions, without its images.

The images' labels are their positions, so that a batch says what is in it.
"""

import numpy as np
import pytest

from forgetsam import data

pytestmark = pytest.mark.slow

N = 23


@pytest.mark.parametrize("batch_size", [5, 23])
def test_of_a_split_in_memory(numbered_split, batch_size):
  whole = numbered_split(2 * N)
  split = whole.take(np.arange(1, 2 * N, 2))  # ids are not positions here
  source = data.MemorySource(split, 2 * N, 0.5, 0.5, crop_padding=1)
  options = {"batch_size": batch_size, "seed": 3}
  batches = list(source.train_batches(num_steps=8, **options))
  for step in (0, 4, 7):
    batch = batches[step]
    found = source.train_indices(step=step, **options)
    np.testing.assert_array_equal(found, batch["label"])


@pytest.mark.parametrize(("start", "count"), [(0, 12), (3, 4), (7, 0)])
def test_of_many_steps(numbered_split, start, count):
  options = {"seed": 3, "start_step": start, "num_steps": count}
  found = data.train_positions(N, batch_size=5, **options)
  batches = data.train_batches(
    numbered_split(N), batch_size=5, mean=0.0, std=1.0, **options
  )
  assert found.shape == (count, 5)
  for row, batch in zip(found, batches, strict=True):
    np.testing.assert_array_equal(row, batch["label"])


@pytest.mark.parametrize("batch_size", [5, 6])
def test_of_a_streamed_split(numbered_set, batch_size):
  directory = numbered_set(N + 8, num_shards=4)
  options = data.StreamOptions(
    mean=0.0,
    std=1.0,
    train_crop=data.RandomResizedCrop(size=8),
    threads=2,
    shuffle_buffer=8,
  )
  split = data.stream_split("tiny", "train", options, data_dir=directory)
  part = split.part(4, 4 + N)  # positions stay those of the whole split
  arguments = {"batch_size": batch_size, "seed": 3}
  batches = list(part.train_batches(num_steps=8, **arguments))
  for step in (0, 3, 7):
    batch = batches[step]
    found = part.train_indices(step=step, **arguments)
    np.testing.assert_array_equal(found, batch["label"])


def test_no_file_is_read(numbered_set):
  directory = numbered_set(N, num_shards=4)
  options = data.StreamOptions(mean=0.0, std=1.0)
  split = data.stream_split("tiny", "train", options, data_dir=directory)
  expected = split.train_indices(batch_size=6, seed=0, step=5)
  for file in (directory / "tiny" / "1.0.0").glob("*train.tfrecord*"):
    file.unlink()
  found = split.train_indices(batch_size=6, seed=0, step=5)
  np.testing.assert_array_equal(found, expected)
