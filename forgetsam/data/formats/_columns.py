"""Checks arrays, and makes splits of them."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from absl import logging

from forgetsam.data._rows import Column, Rows, blocks, row_wise
from forgetsam.data._split import Split
from forgetsam.data.files import impossible_labels, in_words
from forgetsam.data.formats._array_names import FORMS, place_arrays

_MOST_GROUPS = 100
_LIMIT = 2**31  # JAX's integers hold less


def make_splits(
  columns: Mapping[str, np.ndarray], name: str, *, streamed: bool
) -> tuple[dict[str, Split], int | None]:
  """The splits, and the number of classes where labels are one-hot.

  Those that are `streamed` are read as needed, but for what has one axis.
  """
  try:
    places = place_arrays(columns)
  except ValueError as error:
    raise ValueError(f"{name}: {error}") from error
  splits = {}
  for split in dict.fromkeys(split for split, _ in places):
    for column in ("images", "labels"):
      if (split, column) not in places:
        raise ValueError(
          f"{name} has no {column} of {split!r}; it has {', '.join(columns)}\n"
          f"  allowed: {FORMS}"
        )
    found = {
      column: _checked(
        columns[array],
        f"{name}: {array}",
        image=column == "images",
        streamed=streamed,
      )
      for (one, column), array in places.items()
      if one == split
    }
    splits[split] = _split(found, f"{name}, {split!r}")
  _check_alike(splits, name)
  if all(map(_is_one_hot, splits.values())):
    return _as_classes(splits)
  return splits, None


def _split(found: dict[str, Column], name: str) -> Split:
  images, labels = found["images"], found["labels"]
  column = labels.dtype == np.int32 and labels.shape[1:] == (1,)
  if column and images.shape[1:2] != (1,):  # classes as Keras stores them
    labels = labels[:][:, 0]
  if len(images) != len(labels) or not len(images):
    raise ValueError(
      f"{name} has {len(images)} inputs and {len(labels)} labels\n  allowed: as"
      " many of both, and at least one"
    )
  weights = found.get("weights")
  if weights is not None:
    if weights.shape not in (labels.shape, labels.shape[:1]):
      raise ValueError(
        f"{name} has weights {list(weights.shape)}\n  allowed: one for each"
        f" example or label, {list(labels.shape)}"
      )
    weights = row_wise(_float32, np.float32, weights)
    _check_each(weights, name, _negative, "negative weights", "at least 0")
    if labels.dtype == np.int32:  # what counts for nothing need be no class
      labels = row_wise(_excused, np.int32, labels, weights)
  groups = _groups(found.get("groups"), len(labels), name)
  return Split(images, labels, np.arange(len(labels)), weights, groups)


def _groups(
  numbers: Column | None, count: int, name: str
) -> dict[str, np.ndarray]:
  if numbers is None:
    return {}
  if (
    isinstance(numbers, Rows)
    or numbers.shape != (count,)
    or numbers.dtype != np.int32
    or not 0 <= numbers.min() <= numbers.max() < _MOST_GROUPS
  ):
    raise ValueError(
      f"{name} has groups of {numbers.dtype} {list(numbers.shape)}\n  allowed:"
      f" one integer for each of {count} examples, from 0 to below"
      f" {_MOST_GROUPS}"
    )
  return {str(i): numbers == i for i in range(int(numbers.max()) + 1)}


def _checked(
  array: np.ndarray, name: str, *, image: bool, streamed: bool
) -> Column:
  """An array of a type that batches can hold: uint8 images, float32, int32."""
  known = array.dtype.kind in ("iuf" if image else "iufb")
  if not known or not array.ndim or 0 in array.shape[1:]:
    raise ValueError(
      f"{name} is {array.dtype} {list(array.shape)}\n  allowed: integers or"
      " floats, with a row for each example, which is not empty"
    )
  mapped = isinstance(array, np.memmap)
  name = str(getattr(array, "filename", None) or name)
  dtype: Any = np.int32
  if array.dtype.kind == "f":
    dtype, finite = np.float32, "values that are not finite"
    _check_each(array, name, _not_finite, finite, "finite numbers")
  elif image and array.dtype == np.uint8 and array.ndim in (3, 4):
    dtype = np.uint8
    array = array[..., None] if array.ndim == 3 else array
  elif not np.can_cast(array.dtype, np.int32):
    large = "integers beyond 32 bits"
    _check_each(array, name, _large, large, "integers that int32 holds")
  if streamed and array.ndim > 1:
    if mapped and not array.flags.c_contiguous and array.flags.f_contiguous:
      raise ValueError(
        f"{name} is stored column by column (Fortran order): each batch would"
        " read all of it\n  allowed: rows in C order, as"
        " numpy.save(..., numpy.ascontiguousarray(array)) writes them"
      )
    return Rows(
      array.shape, np.dtype(dtype), lambda rows: np.asarray(array[rows], dtype)
    )
  return np.array(array, dtype, copy=mapped or None)


def _check_each(
  column: Column,
  name: str,
  wrong: Callable[[np.ndarray], np.ndarray],
  found: str,
  allowed: str,
) -> None:
  """Counts the values that are wrong, and names the first one's row."""
  count, first = 0, 0
  for start, block in blocks(column):
    bad = wrong(block)
    if bad.any():
      first = first if count else start + int(np.argwhere(bad)[0][0])
      count += int(bad.sum())
  if count:
    raise ValueError(
      f"{name} has {count} {found}, the first in row {first}\n  allowed:"
      f" {allowed}"
    )


def _float32(block: np.ndarray) -> np.ndarray:
  with np.errstate(over="ignore"):  # beyond float32 is not finite either
    return block.astype(np.float32, copy=False)


def _not_finite(block: np.ndarray) -> np.ndarray:
  return ~np.isfinite(_float32(block))


def _large(block: np.ndarray) -> np.ndarray:
  return (block >= _LIMIT) | (block < -_LIMIT)


def _negative(block: np.ndarray) -> np.ndarray:
  return block < 0


def _excused(labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """The labels, but 0 where the weight is."""
  more = [1] * (labels.ndim - weights.ndim)
  return np.where(weights.reshape(*weights.shape, *more) > 0, labels, 0)


def _is_one_hot(split: Split) -> bool:
  labels = split.labels
  tokens = split.images.dtype == np.int32  # whose labels are one a position
  if tokens or labels.ndim != 2 or labels.shape[1] < 2:
    return False
  return all(
    ((block == 0) | (block == 1)).all() and (block.sum(axis=1) == 1).all()
    for _, block in blocks(labels)
  )


def _as_classes(splits: Mapping[str, Split]) -> tuple[dict[str, Split], int]:
  def classes(one_hot: Column) -> np.ndarray:
    found = [block.argmax(axis=1) for _, block in blocks(one_hot)]
    return np.concatenate(found).astype(np.int32)

  found = {
    split: dataclasses.replace(one, labels=classes(one.labels))
    for split, one in splits.items()
  }
  return found, next(iter(splits.values())).labels.shape[1]


def _check_alike(splits: Mapping[str, Split], name: str) -> None:
  kinds = {
    split: [(str(c.dtype), c.shape[1:]) for c in (one.images, one.labels)]
    for split, one in splits.items()
  }
  first = next(iter(kinds))
  for split, kind in kinds.items():
    if kind != kinds[first]:
      raise ValueError(
        f"{name}: inputs and labels of {split!r} are {kind}\n"
        f"  allowed: as those of {first!r}, {kinds[first]}"
      )


def check_labels(
  splits: Mapping[str, Split], name: str, num_classes: int | None
) -> int:
  """The number of classes, or of a target's numbers; refuses other labels."""
  labels = [one.labels for one in splits.values()]
  if labels[0].dtype != np.int32:
    return labels[0].shape[-1] if labels[0].ndim > 1 else 1
  if num_classes is None:
    largest = max(b.max() for column in labels for _, b in blocks(column))
    num_classes = int(largest) + 1
  if num_classes < 2:
    raise ValueError(
      f"{name} has num_classes={num_classes}\n  allowed: at least 2, or there"
      " is nothing to tell apart"
    )
  for split, one in splits.items():
    for start, block in blocks(one.labels):
      ids = one.ids[start : start + len(block)]
      if found := impossible_labels(block, ids, num_classes):
        raise ValueError(in_words(f"{name}, {split!r}", found, num_classes))
  if labels[0].ndim == 1 and not any((array[:] == 0).any() for array in labels):
    logging.warning("%s has no example of class 0; classes count from 0", name)
  return num_classes
