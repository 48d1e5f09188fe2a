"""Labels that name no class, found before training or scoring begins."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Int, Int64

from forgetsam.data._batches import Batches
from forgetsam.data._errors import DataError
from forgetsam.data._tensorflow import tf
from forgetsam.data.files._records import Records, numbered

# So much takes seconds; ImageNet holds seventy times the bytes.
_MOST_BYTES, _MOST = 2**31, 500_000

# Positions in TFDS's split, and the labels there.
Impossible = list[tuple[int, Any]]


def impossible_labels(
  labels: Int[np.ndarray, "n ..."],
  positions: Int64[np.ndarray, " n"],
  num_classes: int,
) -> Impossible:
  """Finds the examples with a label that is none of the classes."""
  wrong = (labels < 0) | (labels >= num_classes)
  rows = np.flatnonzero(wrong.reshape(len(labels), -1).any(axis=1))
  return [(int(positions[row]), labels[row].tolist()) for row in rows]


def read_impossible_labels(
  records: Records,
  parse: Callable[[Any], Any],
  *,
  num_classes: int,
  record_bytes: float,
  threads: int,
) -> Impossible:
  """Reads labels alone, and finds the impossible ones.

  `parse` takes serialised examples to their labels. What cannot be read is left
  out, and of large splits all but the first records of each file: both are
  noticed when they are used.
  """
  total = records.total
  share = min(_MOST_BYTES / max(1.0, record_bytes * total), _MOST / total)
  if share < 1:
    take = np.ceil(share * records.take).astype(np.int64)
    records = records._replace(take=take)
  as_written = tf.autograph.experimental.do_not_convert
  batches = numbered(records, threads).map(
    as_written(lambda rows, contents: (rows, parse(contents)))
  )
  origins = records.origins()
  found: Impossible = []
  for rows, labels in batches.as_numpy_iterator():
    found += impossible_labels(labels, origins[rows], num_classes)
  return sorted(found)


def guard_labels(
  batches: Batches,
  name: str,
  positions: Callable[[int], Int64[np.ndarray, " n"]],
  num_classes: int,
) -> Batches:
  """Passes batches on; raises a DataError at the first impossible label.

  `positions` gives the places in TFDS's split of a batch's rows, at least.
  """
  for number, batch in enumerate(batches):
    labels = batch["label"]
    if np.any((labels < 0) | (labels >= num_classes)):
      here = positions(number)[: len(labels)]
      found = impossible_labels(labels, here, num_classes)
      raise DataError(in_words(name, found, num_classes))
    yield batch


def in_words(name: str, found: Impossible, num_classes: int) -> str:
  """Names the first of the examples, and counts the others."""
  position, label = found[0]
  what = "is without a label (-1)" if label == -1 else f"has label {label}"
  others = f", and {len(found) - 1} more like it" if found[1:] else ""
  return (
    f"{name}: example {position} {what}{others}\n  allowed: splits whose labels"
    f" are all 0 to {num_classes - 1}; choose another, or prepare the set again"
  )
