"""Serialised examples of a TFDS split, by their positions."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int64

from forgetsam.data._tensorflow import tf

if TYPE_CHECKING:
  import tensorflow_datasets as tfds


class Records(NamedTuple):
  """Runs of consecutive records: an array or tensor per field, a row per run.

  Attributes:
    path: a run's file.
    skip: position in the file of a run's first record.
    take: number of records in a run.
    first: position in the split of a run's first record.
    origin: the same in TFDS's split, which may hold examples left out here.
  """

  path: Any
  skip: Any
  take: Any
  first: Any
  origin: Any

  @property
  def total(self) -> int:
    """The number of records in all runs."""
    return int(np.sum(self.take))

  def run_of(self) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Each record's run, and its position within that."""
    run = np.repeat(np.arange(len(self.take)), self.take)
    start = np.cumsum(self.take) - self.take
    return run, np.arange(self.total) - start[run]

  def origins(self) -> Int64[np.ndarray, " n"]:
    """Each record's position in TFDS's split."""
    run, within = self.run_of()
    return np.asarray(self.origin)[run] + within

  def only(self, good: Bool[np.ndarray, " n"]) -> "Records":
    """The good records, at new positions without gaps."""
    run, within = self.run_of()
    follows = np.zeros(len(good), bool)
    follows[1:] = good[:-1] & (run[1:] == run[:-1])
    begins = good & ~follows
    take = np.bincount(np.cumsum(begins)[good] - 1).astype(np.int64)
    run, within = run[begins], within[begins]
    return Records(
      path=self.path[run],
      skip=self.skip[run] + within,
      take=take,
      first=np.cumsum(take) - take,
      origin=self.origin[run] + within,
    )


def find_records(builder: "tfds.core.DatasetBuilder", split: str) -> Records:
  """The records of a split; reads no data.

  Raises:
    ValueError: the set was not prepared in the TFRecord format.
  """
  file_format = builder.info.file_format
  if file_format is None or file_format.value != "tfrecord":
    raise ValueError(
      f"{builder.info.full_name} is stored as {file_format}; prepare it in the"
      " TFRecord format (`tfds build --file_format=tfrecord`)"
    )
  files = builder.info.splits[split].file_instructions
  takes = np.array([file.take for file in files], np.int64)
  return Records(
    path=np.array([str(file.filename) for file in files]),
    skip=np.array([file.skip for file in files], np.int64),
    take=takes,
    first=np.cumsum(takes) - takes,
    origin=np.cumsum(takes) - takes,
  )


def part(
  records: Records, start: "int | tf.Tensor", stop: "int | tf.Tensor"
) -> Records:
  """The records at positions `start` to `stop`, as tensors."""
  first = tf.maximum(records.first, start)
  last = tf.minimum(records.first + records.take, stop)
  passed = first - records.first
  part = Records(
    path=records.path,
    skip=records.skip + passed,
    take=last - first,
    first=first,
    origin=records.origin + passed,
  )
  return Records(*(tf.boolean_mask(field, last > first) for field in part))


def in_order(records: Records) -> "tf.data.Dataset":
  """Serialised examples, in the order of the split."""
  as_written = tf.autograph.experimental.do_not_convert
  runs = tf.data.Dataset.from_tensor_slices(tuple(records))
  return runs.flat_map(as_written(lambda *run: serialised(Records(*run))))


def serialised(run: Records) -> "tf.data.Dataset":
  """The serialised examples of one run."""
  records = tf.data.TFRecordDataset(run.path).skip(run.skip).take(run.take)
  # Fewer records than TFDS counted would silently repeat others.
  return records.apply(tf.data.experimental.assert_cardinality(run.take))
