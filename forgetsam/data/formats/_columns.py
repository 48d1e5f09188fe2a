"""Checks arrays, and makes splits of them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Shaped

from forgetsam.data._split import Split
from forgetsam.data.files import impossible_labels, in_words
from forgetsam.data.formats._array_names import FORMS, place_arrays

_MOST_GROUPS = 100
_LIMIT = 2**31  # JAX's integers hold less


def make_splits(
  columns: Mapping[str, Any], name: str
) -> tuple[dict[str, Split], int | None]:
  """The splits, and the number of classes where labels are one-hot."""
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
        columns[array], f"{name}: {array}", image=column == "images"
      )
      for (one, column), array in places.items()
      if one == split
    }
    splits[split] = _split(found, f"{name}, {split!r}")
  _check_alike(splits, name)
  if all(map(_is_one_hot, splits.values())):
    return _as_classes(splits)
  return splits, None


def _split(found: dict[str, np.ndarray], name: str) -> Split:
  images, labels = found["images"], found["labels"]
  column = labels.dtype == np.int32 and labels.shape[1:] == (1,)
  if column and images.shape[1:2] != (1,):  # classes as Keras stores them
    labels = labels[:, 0]
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
    weights = weights.astype(np.float32)
    if np.any(weights < 0):
      raise ValueError(f"{name} has negative weights\n  allowed: at least 0")
    if labels.dtype == np.int32:  # what counts for nothing need be no class
      more = [1] * (labels.ndim - weights.ndim)
      labels = np.where(weights.reshape(*weights.shape, *more) > 0, labels, 0)
  groups = _groups(found.get("groups"), len(labels), name)
  return Split(images, labels, np.arange(len(labels)), weights, groups)


def _groups(
  numbers: np.ndarray | None, count: int, name: str
) -> dict[str, np.ndarray]:
  if numbers is None:
    return {}
  if (
    numbers.shape != (count,)
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
  array: Any, name: str, *, image: bool = False
) -> Shaped[np.ndarray, "n ..."]:
  """An array of a type that batches can hold: uint8 images, float32, int32."""
  try:
    array = np.asarray(array)
  except ValueError as error:  # rows of different lengths
    raise ValueError(f"{name} is no array: {error}") from error
  if array.dtype.kind not in ("iuf" if image else "iufb") or not array.ndim:
    raise ValueError(
      f"{name} is {array.dtype} {list(array.shape)}\n  allowed: integers or"
      " floats, with a row for each example"
    )
  if array.dtype.kind == "f":
    with np.errstate(over="ignore"):  # beyond float32 is not finite either
      array = array.astype(np.float32, copy=False)
    bad = ~np.isfinite(array)
    if bad.any():
      raise ValueError(
        f"{name} has {int(bad.sum())} values that are not finite, the first in"
        f" row {int(np.argwhere(bad)[0][0])}\n  allowed: finite numbers"
      )
    return array
  if image and array.dtype == np.uint8 and array.ndim in (3, 4):
    return array[..., None] if array.ndim == 3 else array
  if array.size and (array.max() >= _LIMIT or array.min() < -_LIMIT):
    raise ValueError(f"{name} has integers beyond 32 bits")
  return array.astype(np.int32, copy=False)


def _is_one_hot(split: Split) -> bool:
  labels = split.labels
  tokens = split.images.dtype == np.int32  # whose labels are one a position
  if tokens or labels.ndim != 2 or labels.shape[1] < 2:
    return False
  binary = ((labels == 0) | (labels == 1)).all()
  return bool(binary and (labels.sum(axis=1) == 1).all())


def _as_classes(splits: Mapping[str, Split]) -> tuple[dict[str, Split], int]:
  classes = {
    split: dataclasses.replace(
      one, labels=one.labels.argmax(axis=1).astype(np.int32)
    )
    for split, one in splits.items()
  }
  return classes, next(iter(splits.values())).labels.shape[1]


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
    num_classes = int(max(array.max() for array in labels)) + 1
  if num_classes < 2:
    raise ValueError(
      f"{name} has num_classes={num_classes}\n  allowed: at least 2, or there"
      " is nothing to tell apart"
    )
  for split, one in splits.items():
    if found := impossible_labels(one.labels, one.ids, num_classes):
      raise ValueError(in_words(f"{name}, {split!r}", found, num_classes))
  if labels[0].ndim == 1 and not any((array == 0).any() for array in labels):
    logging.warning("%s has no example of class 0; classes count from 0", name)
  return num_classes
