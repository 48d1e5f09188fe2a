"""Corrupt examples are named, or left out as if they had never been there.

The images' labels are their positions, so that a batch says what is in it.
"""

import numpy as np
import pytest

from forgetsam import data
from forgetsam.data import DataError, import_tensorflow

pytestmark = pytest.mark.slow

N = 24
STEPS = {"batch_size": 6, "seed": 3, "num_steps": 8}


def open_split(directory, name="train", **options):
  defaults = {"train_crop": data.RandomResizedCrop(size=8), "threads": 2}
  defaults["eval_crop"] = data.CenterCrop(size=8, short_side=8)
  return data.stream_split(
    "tiny",
    name,
    data.StreamOptions(
      mean=0.0, std=1.0, shuffle_buffer=8, **(defaults | options)
    ),
    data_dir=directory,
  )


def file_of(directory, number):
  return sorted((directory / "tiny" / "1.0.0").glob("*train.tfrecord*"))[number]


def rewrite(file, change):
  """Writes the records again, with sound checksums, some of them changed."""
  tf = import_tensorflow()
  records = list(tf.data.TFRecordDataset(str(file)).as_numpy_iterator())
  with tf.io.TFRecordWriter(str(file)) as writer:
    for number, record in enumerate(records):
      writer.write(change(number, record))


def spoil_image(*numbers):
  """Overwrites the JPEG of these records, behind its first bytes."""

  def change(number, record):
    if number not in numbers:
      return record
    start = record.index(b"\xff\xd8\xff") + 4
    return record[:start] + b"\0" * 60 + record[start + 60 :]

  return change


def flip_bit(file, number):
  """Flips a bit in a record, whose checksum then fails."""
  content = bytearray(file.read_bytes())
  at = 0
  for _ in range(number):
    at += 16 + int.from_bytes(content[at : at + 8], "little")
  content[at + 12 + 40] ^= 1
  file.write_bytes(content)


def seen(batches):
  return [row["label"].tolist() for row in batches]


# Two files of twelve records each.
@pytest.fixture
def directory(numbered_set):
  return numbered_set(N, num_shards=2)


def test_an_undecodable_image_is_named(directory):
  file = file_of(directory, 1)
  rewrite(file, spoil_image(3))
  split = open_split(directory)
  with pytest.raises(DataError) as failed:
    list(split.train_batches(**STEPS))
  said = str(failed.value)
  assert f"example 15 cannot be used: record 3 of {file}" in said
  assert "config.data.skip_corrupt=true" in said
  assert "function_node" not in said
  # A resumed run, and evaluation, say the same.
  with pytest.raises(DataError, match="example 15 cannot be used"):
    list(split.train_batches(**STEPS, start_step=2))
  with pytest.raises(DataError, match="example 15 cannot be used"):
    list(split.eval_batches(batch_size=5))


def test_a_flipped_bit_is_named(directory):
  file = file_of(directory, 1)
  flip_bit(file, 5)
  split = open_split(directory)
  for batches in (
    split.train_batches(**STEPS),
    split.eval_batches(batch_size=5),
  ):
    with pytest.raises(DataError) as failed:
      list(batches)
    said = str(failed.value)
    assert f"example 17 cannot be used: record 5 of {file}" in said
    assert "corrupted record" in said


def test_a_missing_file_is_named(directory):
  file = file_of(directory, 0)
  split = open_split(directory)
  file.unlink()
  with pytest.raises(DataError, match=f"{file} is missing"):
    list(split.train_batches(**STEPS))


def test_left_out_is_as_never_there(directory, numbered_set, caplog):
  rewrite(file_of(directory, 0), spoil_image(0, 4, 5, 11))
  rewrite(file_of(directory, 1), spoil_image(3))
  split = open_split(directory, skip_corrupt=True)
  bad = [0, 4, 5, 11, 15]
  good = [i for i in range(N) if i not in bad]
  assert (len(split), split.left_out) == (len(good), 5)
  assert "at positions 0, 4, 5, 11, 15" in caplog.text
  rows = list(split.eval_batches(batch_size=5))
  labels = np.concatenate([r["label"][r["mask"] > 0] for r in rows])
  assert labels.tolist() == good
  whole = list(split.train_batches(**STEPS))
  per_epoch = data.steps_per_epoch(len(good), 6)
  for epoch in (whole[:per_epoch], whole[per_epoch : 2 * per_epoch]):
    assert sorted({i for row in seen(epoch) for i in row}) == good
  # Resuming and sharing are exact, and positions are those of TFDS's split.
  options = {"batch_size": 6, "seed": 3}
  resumed = list(split.train_batches(**options, start_step=3, num_steps=5))
  assert seen(resumed) == seen(whole[3:])
  for one, other in zip(resumed, whole[3:], strict=True):
    np.testing.assert_array_equal(one["image"], other["image"])
  halves = [
    seen(split.train_batches(**STEPS, shard=(index, 2))) for index in (0, 1)
  ]
  assert [a + b for a, b in zip(*halves, strict=True)] == seen(whole)
  found = split.train_indices(**options, step=4)
  assert found.tolist() == whole[4]["label"].tolist()


def test_behind_a_flipped_bit_the_rest_of_its_file_is_left_out(directory):
  flip_bit(file_of(directory, 0), 9)
  split = open_split(directory, skip_corrupt=True)
  assert (len(split), split.left_out) == (21, 3)
  rows = list(split.eval_batches(batch_size=7))
  labels = np.concatenate([row["label"] for row in rows])
  assert labels.tolist() == [*range(9), *range(12, 24)]


def test_sound_sets_are_read_as_without_the_option(directory):
  plain = list(open_split(directory).train_batches(**STEPS))
  split = open_split(directory, skip_corrupt=True)
  assert split.left_out == 0
  assert seen(split.train_batches(**STEPS)) == seen(plain)


def test_nothing_left_is_an_error(directory):
  for number in (0, 1):
    flip_bit(file_of(directory, number), 0)
  with pytest.raises(DataError, match="all of its 24 examples are corrupt"):
    open_split(directory, skip_corrupt=True)


def test_held_out_parts_are_counted_among_what_is_left(directory):
  rewrite(file_of(directory, 0), spoil_image(2))
  options = data.StreamOptions(
    mean=0.0,
    std=1.0,
    train_crop=data.RandomResizedCrop(size=8),
    eval_crop=data.CenterCrop(size=8, short_side=8),
    skip_corrupt=True,
  )
  sources = data.stream("tiny", options, data_dir=directory, validation=0.25)
  assert sources.left_out == 1
  assert len(sources.train) + len(sources.validation) == 23


def test_in_a_part_of_a_split_it_is_named_as_well(directory):
  file = file_of(directory, 1)
  rewrite(file, spoil_image(3))
  part = open_split(directory).part(10, 20)
  with pytest.raises(DataError) as failed:
    list(part.train_batches(**STEPS))
  assert f"example 15 cannot be used: record 3 of {file}\n" in str(failed.value)
  file.unlink()
  with pytest.raises(DataError, match=f"^{file} is missing"):
    list(part.train_batches(**STEPS))


def test_in_memory_a_corrupt_example_is_named(numbered_set):
  directory = numbered_set(N, num_shards=2, fixed=True)
  file = file_of(directory, 1)
  rewrite(file, spoil_image(3))
  with pytest.raises(DataError, match=f"example 15 .*record 3 of {file}"):
    data.load("tiny", data_dir=directory)
