"""Records that cannot be read and images that cannot be decoded.

They are found before training, on the set alone: an order drawn from (seed,
epoch) over the examples that are left is as exact, and as independent of
processes and of where a run resumes, as one over a set that never had others.
"""

import dataclasses
import os
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Bool, Int64

from forgetsam.data._batches import Batches
from forgetsam.data._errors import DataError
from forgetsam.data._tensorflow import tf
from forgetsam.data.files._records import (
  Records,
  Store,
  check_files,
  in_order,
  numbered,
)

# Calls a function in one process, and gives its result to all of them.
Agree = Callable[[Callable[[], Any]], Any]
_MOST_NAMED = 20


@dataclasses.dataclass(frozen=True, eq=False)
class Checker:
  """Finds a split's corrupt examples.

  Attributes:
    name: the set's and the split's, for messages.
    records: where the examples are.
    check: reads a serialised example to its last pixel and gives a number; it
      fails where the example is no image.
    threads: examples to decode at once.
    store: reads the examples; None where they are TFRecords.
  """

  name: str
  records: Records
  check: Callable[[Any], Any]
  threads: int
  store: Store | None = None

  def readable(self) -> Bool[np.ndarray, " n"]:
    """Tells for each record whether it can be read and decoded."""
    records, check = self.records, self.check
    check_files(records, empty=True)
    as_written = tf.autograph.experimental.do_not_convert
    rows = (
      numbered(records, self.threads, self.store)
      .unbatch()
      .map(
        as_written(lambda row, contents: (row, check(contents))),
        num_parallel_calls=self.threads,
      )
      .ignore_errors()
    )
    good = np.zeros(records.total, bool)
    for row, _ in rows.as_numpy_iterator():
      good[row] = True
    return good

  def sound_records(self, agree: Agree) -> Records:
    """Leaves corrupt examples out, and logs them; DataError if none is left."""
    name, count = self.name, self.records.total
    logging.warning("%s: reading %d examples to find corrupt ones", name, count)
    bits = agree(lambda: np.packbits(self.readable()))
    good = np.unpackbits(bits, count=count).astype(bool)
    if good.all():
      return self.records
    if not good.any():
      raise DataError(f"{name}: all of its {count} examples are corrupt")
    bad = self.records.origins()[~good]
    named = ", ".join(str(position) for position in bad[:_MOST_NAMED])
    logging.warning(
      "%s: %d of %d examples are corrupt and left out, at positions %s",
      *(name, len(bad), count),
      named + (", ..." if len(bad) > _MOST_NAMED else ""),
    )
    return self.records.only(good)

  def guard(
    self,
    batches: Batches,
    suspects: Callable[[int], Iterable[Int64[np.ndarray, " n"]]],
  ) -> Batches:
    """Passes batches on; where one cannot be made, names the corrupt example.

    `suspects` gives, for a batch's number, positions in TFDS's split that it
    may have failed for: arrays, most likely ones first.
    """
    number = 0
    while True:
      try:
        batch = next(batches, None)
      except tf.errors.OpError as error:
        for positions in suspects(number):
          text = self.describe(positions)
          if text is not None:
            raise DataError(text) from error
        text = f"{self.name} cannot be read: {reason(error)}"
        raise DataError(text) from error
      if batch is None:
        return
      yield batch
      number += 1

  def describe(self, positions: Int64[np.ndarray, " n"]) -> str | None:
    """Names the first of these examples that is corrupt; None if none is."""
    run, _ = self.records.run_of()
    wanted = np.isin(self.records.origins(), positions)
    # Only the files that they are in.
    runs = np.unique(run[wanted])
    some = Records(*(field[runs] for field in self.records))
    readable = dataclasses.replace(self, records=some).readable()
    bad = ~readable & wanted[np.isin(run, runs)]
    if not bad.any():
      return None
    position = some.origins()[bad][0]
    if self.store is not None:
      return self._in_store(self.store, some.only(some.origins() == position))
    [i] = np.flatnonzero(
      (some.origin <= position) & (position < some.origin + some.take)
    )
    # TensorFlow gives parts of splits back with their paths as bytes.
    path, before = os.fsdecode(some.path[i]), int(some.origin[i] - some.skip[i])
    # Of a file that cannot be read further, the record where that begins.
    number = min(int(position) - before, _num_readable(path))
    return (
      f"{self.name}: example {number + before} cannot be used: record {number} "
      f"of {path}\n  {self._reason_of(path, number)}\n"
      "  allowed: the set as it was prepared; or config.data.skip_corrupt=true "
      "with config.data.stream=true, which leaves such examples out"
    )

  def _in_store(self, store: Store, one: Records) -> str:
    position = int(store.ids[one.origin[0]])
    return (
      f"{self.name}: example {position} cannot be used: {store.where(position)}"
      f"\n  {self._reason(in_order(one, store))}\n  allowed: an image that can"
      " be opened; or config.data.skip_corrupt=true with"
      " config.data.stream=true, which leaves such examples out"
    )

  def _reason_of(self, path: str, number: int) -> str:
    return self._reason(tf.data.TFRecordDataset(path).skip(number).take(1))

  def _reason(self, one: "tf.data.Dataset") -> str:
    try:
      found = list(one.map(self.check).as_numpy_iterator())
    except tf.errors.OpError as error:
      return reason(error)
    return "it is corrupt" if found else "the file ends before it"


def reason(error: Exception) -> str:
  """TensorFlow's message without the names of its graph's operations."""
  text = str(error).partition("\n")[0]
  text = re.sub(r"\{\{[^}]*\}\}\s*", "", text)
  text = re.sub(r"Error in user-defined function .*? iterator: \S+: ", "", text)
  return re.sub(r"\s*\[Op:\w+\].*$", "", text)


def _num_readable(path: str) -> int:
  """Records before the first that cannot be read."""
  records = tf.data.TFRecordDataset(path).ignore_errors()
  return sum(1 for _ in records.as_numpy_iterator())
