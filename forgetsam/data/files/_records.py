"""Serialised examples of a split, by their positions."""

import concurrent.futures
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int64

from forgetsam.data._errors import DataError
from forgetsam.data._tensorflow import tf

if TYPE_CHECKING:
  import tensorflow_datasets as tfds

_FILES_AT_ONCE = 32  # remote ones answer late
_AT_ONCE = 64  # records; one by one, small ones take three times as long


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


class Store(NamedTuple):
  """Reads examples from files that are no TFRecords.

  Attributes:
    read: gives the dataset of a run's examples, to be parsed.
    ids: positions in the whole split of those that `Records.origin` counts.
    where: says where the example of such a position lies.
  """

  read: Callable[[Records], Any]
  ids: Int64[np.ndarray, " n"]
  where: Callable[[int], str]


def find_records(builder: "tfds.core.DatasetBuilder", split: str) -> Records:
  """The records of a split; reads no data.

  Raises:
    ValueError: the set was not prepared in the TFRecord format.
  """
  file_format = builder.info.file_format
  if file_format is None or file_format.value != "tfrecord":
    raise ValueError(
      f"{builder.info.full_name} is stored as {file_format}; prepare it in the"
      " TFRecord format: in Python,"
      f' `tfds.builder("{builder.name}", file_format="tfrecord")'
      ".download_and_prepare()`"
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


def in_order(records: Records, store: Store | None = None) -> "tf.data.Dataset":
  """Serialised examples, in the order of the split."""
  read = serialised if store is None else store.read
  as_written = tf.autograph.experimental.do_not_convert
  runs = tf.data.Dataset.from_tensor_slices(tuple(records))
  return runs.flat_map(as_written(lambda *run: read(Records(*run))))


def numbered(
  records: Records, threads: int, store: Store | None = None
) -> "tf.data.Dataset":
  """Rows and serialised examples of what can be read, some at a time.

  A record that cannot be read takes the rest of its file with it: where it
  ends is not known.
  """
  as_written = tf.autograph.experimental.do_not_convert

  @as_written
  def read(row: Any, *fields: Any) -> "tf.data.Dataset":
    run = Records(*fields)
    contents = _stored(run) if store is None else store.read(run)
    rows = tf.data.Dataset.range(row, row + run.take).batch(_AT_ONCE)
    found = contents.ignore_errors().batch(_AT_ONCE)
    return tf.data.Dataset.zip(rows, found).map(
      as_written(lambda rows, found: (rows[: tf.size(found)], found))
    )

  first_row = np.cumsum(records.take) - records.take
  runs = tf.data.Dataset.from_tensor_slices((first_row, *records))
  return runs.interleave(read, cycle_length=threads, num_parallel_calls=threads)


def check_files(records: Records, *, empty: bool = False) -> None:
  """Raises a DataError where a file is missing, or empty unless allowed."""

  def problem(path: Any) -> str | None:
    if not tf.io.gfile.exists(path):
      return "is missing"
    if not empty and tf.io.gfile.stat(path).length == 0:
      return "is empty"
    return None

  paths = np.unique(records.path)
  with concurrent.futures.ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
    for path, found in zip(paths, pool.map(problem, paths), strict=True):
      if found is not None:
        raise DataError(
          f"{os.fsdecode(path)} {found}, which the data set consists of\n"
          "  allowed: the set as it was prepared; copy the file again, or"
          " remove the set's folder and prepare it again"
        )


def serialised(run: Records) -> "tf.data.Dataset":
  """The serialised examples of one run."""
  # Fewer records than TFDS counted would silently repeat others.
  return _stored(run).apply(tf.data.experimental.assert_cardinality(run.take))


def _stored(run: Records) -> "tf.data.Dataset":
  return tf.data.TFRecordDataset(run.path).skip(run.skip).take(run.take)


def read_positions(run: Records) -> "tf.data.Dataset":
  """The positions of a run's examples in TFDS's split; reads no file."""
  return tf.data.Dataset.range(run.origin, run.origin + run.take)
