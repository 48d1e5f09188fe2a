"""Records that cannot be read and images that cannot be decoded.

Their fate is decided before training, on the set alone: an order drawn from
(seed, epoch) over the examples that are left is as exact, and as independent of
processes and of where a run resumes, as one over a set that never had others.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import logging
from jaxtyping import Bool, Int64

from forgetsam.data._errors import DataError
from forgetsam.data._tensorflow import import_tensorflow
from forgetsam.data.streaming._decode import check_image
from forgetsam.data.streaming._pipeline import parser
from forgetsam.data.streaming._records import Records, find_records
from forgetsam.experiment.run._processes import on_main

if TYPE_CHECKING:
  import tensorflow as tf
  import tensorflow_datasets as tfds

# Reads a serialised example to its last pixel; gives a number.
Check = Callable[[Any], Any]
_MOST_NAMED = 20


def readable(
  records: Records, check: Check, threads: int
) -> Bool[np.ndarray, " n"]:
  """Which records can be read and decoded, in their order.

  A record that cannot be read takes the rest of its file with it: where it ends
  is not known.

  Args:
    records: where the examples are.
    check: fails where an example is no image.
    threads: examples to decode at once.

  Raises:
    DataError: a file is missing.
  """
  tf = import_tensorflow()
  as_written = tf.autograph.experimental.do_not_convert
  for path in np.unique(records.path):
    if not tf.io.gfile.exists(path):
      raise DataError(
        f"{os.fsdecode(path)} is missing, which the data set consists of"
      )

  @as_written
  def read(
    path: "tf.Tensor", skip: "tf.Tensor", take: "tf.Tensor", row: "tf.Tensor"
  ) -> "tf.data.Dataset":
    contents = tf.data.TFRecordDataset(path).skip(skip).take(take)
    rows = tf.data.Dataset.range(row, row + take)
    return tf.data.Dataset.zip(rows, contents.ignore_errors())

  first_row = np.cumsum(records.take) - records.take
  runs = (records.path, records.skip, records.take, first_row)
  rows = (
    tf.data.Dataset.from_tensor_slices(runs)
    .flat_map(read)
    .map(
      as_written(lambda row, contents: (row, check(contents))),
      num_parallel_calls=threads,
    )
    .ignore_errors()
  )
  good = np.zeros(int(np.sum(records.take)), bool)
  for row, _ in rows.as_numpy_iterator():
    good[row] = True
  return good


def only(records: Records, good: Bool[np.ndarray, " n"]) -> Records:
  """The records that are good, at new positions without gaps."""
  run = np.repeat(np.arange(len(records.take)), records.take)
  first_row = np.cumsum(records.take) - records.take
  place = np.arange(len(good)) - first_row[run]  # within the run
  follows = np.zeros(len(good), bool)
  follows[1:] = good[:-1] & (run[1:] == run[:-1])
  begins = good & ~follows
  take = np.bincount(np.cumsum(begins)[good] - 1).astype(np.int64)
  run, place = run[begins], place[begins]
  return Records(
    path=records.path[run],
    skip=records.skip[run] + place,
    take=take,
    first=np.cumsum(take) - take,
    origin=records.origin[run] + place,
  )


def without_corrupt(
  name: str, records: Records, check: Check, threads: int
) -> Records:
  """Leaves out what is corrupt, and logs what that is.

  Process 0 decides for all, which must call this in the same order.

  Raises:
    DataError: nothing is left.
  """
  count = int(np.sum(records.take))
  logging.warning("%s: reading %d examples to find corrupt ones", name, count)
  bits = on_main(lambda: np.packbits(readable(records, check, threads)))
  good = np.unpackbits(bits, count=count).astype(bool)
  if good.all():
    return records
  if not good.any():
    raise DataError(f"{name}: all of its {count} examples are corrupt")
  bad = origins(records)[~good]
  named = ", ".join(str(position) for position in bad[:_MOST_NAMED])
  logging.warning(
    "%s: %d of %d examples are corrupt and left out, at positions %s",
    *(name, len(bad), count),
    named + (", ..." if len(bad) > _MOST_NAMED else ""),
  )
  return only(records, good)


def guarded(
  batches: Iterator[dict[str, np.ndarray]],
  name: str,
  records: Records,
  check: Check,
  threads: int,
  suspects: Callable[[int], Iterable[Int64[np.ndarray, " n"]]],
) -> Iterator[dict[str, np.ndarray]]:
  """The batches; where one cannot be made, the example that is at fault.

  Args:
    batches: what TensorFlow gives.
    name: the set's and the split's.
    records: what they are made of.
    check: as in `readable`.
    threads: as in `readable`.
    suspects: of a batch's number, positions in TFDS's split that it may have
      failed for, in arrays of falling suspicion.

  Raises:
    DataError: it names the example and its file.
  """
  tf = import_tensorflow()
  number = 0
  while True:
    try:
      batch = next(batches, None)
    except tf.errors.OpError as error:
      for positions in suspects(number):
        text = describe(name, records, check, threads, positions)
        if text is not None:
          raise DataError(text) from error
      raise DataError(f"{name} cannot be read: {reason(error)}") from error
    if batch is None:
      return
    yield batch
    number += 1


def describe(
  name: str,
  records: Records,
  check: Check,
  threads: int,
  positions: Int64[np.ndarray, " n"],
) -> str | None:
  """A sentence about the first of these examples that is corrupt, if any is."""
  run = np.repeat(np.arange(len(records.take)), records.take)
  wanted = np.isin(origins(records), positions)
  # Only the files that they are in.
  runs = np.unique(run[wanted])
  some = Records(*(field[runs] for field in records))
  bad = ~readable(some, check, threads) & wanted[np.isin(run, runs)]
  if not bad.any():
    return None
  position = origins(some)[bad][0]
  [i] = np.flatnonzero(
    (some.origin <= position) & (position < some.origin + some.take)
  )
  # TensorFlow gives parts of splits back with their paths as bytes.
  path, before = os.fsdecode(some.path[i]), int(some.origin[i] - some.skip[i])
  # Of a file that cannot be read further, the record where that begins.
  number = min(int(position) - before, _num_readable(path))
  return (
    f"{name}: example {number + before} cannot be used: record {number} of "
    f"{path}\n  {_reason_of(path, number, check)}\n"
    "  allowed: the set as it was prepared; or config.data.skip_corrupt=true "
    "with config.data.stream=true, which leaves such examples out"
  )


def reason(error: Exception) -> str:
  """TensorFlow's message without what it says of its own workings."""
  text = str(error).partition("\n")[0]
  text = re.sub(r"\{\{[^}]*\}\}\s*", "", text)
  return re.sub(r"\s*\[Op:\w+\].*$", "", text)


def origins(records: Records) -> Int64[np.ndarray, " n"]:
  """Every record's position in TFDS's split."""
  first_row = np.cumsum(records.take) - records.take
  rows = np.arange(int(np.sum(records.take)))
  return rows + np.repeat(records.origin - first_row, records.take)


def _num_readable(path: str) -> int:
  """Records before the first that cannot be read."""
  tf = import_tensorflow()
  records = tf.data.TFRecordDataset(path).ignore_errors()
  return sum(1 for _ in records.as_numpy_iterator())


def _reason_of(path: str, number: int, check: Check) -> str:
  tf = import_tensorflow()
  one = tf.data.TFRecordDataset(path).skip(number).take(1)
  try:
    found = list(one.map(check).as_numpy_iterator())
  except tf.errors.OpError as error:
    return reason(error)
  return "it is corrupt" if found else "the file ends before it"


def explain(
  builder: "tfds.core.DatasetBuilder", split: str, error: Exception
) -> str:
  """Why a split could not be read whole: the first example at fault."""
  name = f"Split {split!r} of {builder.info.full_name}"
  features = builder.info.features
  try:
    records = find_records(builder, split)
  except ValueError:  # in another format
    return f"{name} cannot be read: {reason(error)}"
  parse = parser(features, "label", num_classes=1, multi_label=False)

  def check(serialised: "tf.Tensor") -> "tf.Tensor":
    encoded, _ = parse(serialised)
    return check_image(encoded, channels=features["image"].shape[-1])

  text = describe(name, records, check, os.cpu_count() or 1, origins(records))
  return text or f"{name} cannot be read: {reason(error)}"
