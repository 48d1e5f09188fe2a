"""Sets of arrays that a caller has."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Shaped

from forgetsam.data._choices import choose_parts
from forgetsam.data._identity import SetIdentity
from forgetsam.data._split import ImageData, Split, mislabel
from forgetsam.data.files import impossible_labels, in_words, pixels_fingerprint
from forgetsam.data.formats._array_names import FORMS, place_arrays

_MOST_GROUPS = 100
_LIMIT = 2**31  # JAX's integers hold less


def from_arrays(
  arrays: Any,
  *,
  name: str = "arrays",
  num_classes: int | None = None,
  validation: float = 0.0,
  test: float = 0.2,
  split_seed: int = 0,
  label_noise: float = 0.0,
  train_examples: int | None = None,
) -> ImageData:
  """A set of arrays: images, vectors, token sequences, with any labels.

  Images are uint8 `[n, height, width]` or `[n, height, width, channels]`, and
  batches hold them normalised. Other inputs `[n, ...]` are as they are: floats
  as float32, integers as int32. Labels are integers: classes `[n]`, or of each
  position `[n, ...]`; or floats `[n, ...]`, the targets of a regression.
  Weights `[n]` or of the labels' shape reach losses and metrics as the batch's
  "mask"; where one is 0, the label may be -1. Integers "group" `[n]` name the
  groups of examples whose accuracies are scored.

  Args:
    arrays: by name `{"x_train", "y_train", "x_test", "y_test"}`, as Keras has
      them, or `{"image", "label"}`; with `"val_image"`, `"test_label"`,
      `"mask"` and so on, in either order of the words. Or
      `((x_train, y_train), (x_test, y_test))`, or `(x, y)`. `"num_classes"` may
      be among the names.
    name: of the set, for messages and records.
    num_classes: number of classes K; None takes the largest label plus one.
    validation: as in `data.load`; not used where there is a validation split.
    test: fraction to test on where there is no test split, classes in
      proportion; a validation split comes first.
    split_seed: as in `data.load`.
    label_noise: as in `data.load`.
    train_examples: as in `data.load`.

  Returns:
    The splits, for `data.in_memory`.

  Raises:
    ValueError: an array is missing, does not fit the others, or holds what is
      no number.

  Example:
    >>> x, y = np.ones((10, 3)), np.arange(10) % 2
    >>> images = from_arrays((x, y), validation=0.25)
    >>> len(images.train), len(images.validation), len(images.test)
    (6, 2, 2)
    >>> images.image_shape, images.num_classes
    ((3,), 2)
  """
  splits, num_classes, identity = read_splits(arrays, name, num_classes)
  return assemble(
    splits,
    identity,
    num_classes,
    validation=validation,
    test=test,
    split_seed=split_seed,
    label_noise=label_noise,
    train_examples=train_examples,
  )


def read_splits(
  arrays: Any, name: str, num_classes: int | None = None
) -> tuple[dict[str, Split], int, SetIdentity]:
  """The splits that arrays make, the number of classes, and what they were."""
  columns = dict(_by_name(arrays, name))
  if "num_classes" in columns:
    num_classes = int(columns.pop("num_classes"))
  splits = _splits(columns, name)
  num_classes = _check_labels(splits, name, num_classes)
  prints = {split: pixels_fingerprint(one) for split, one in splits.items()}
  return splits, num_classes, SetIdentity(name, prints)


def assemble(
  splits: Mapping[str, Split],
  identity: SetIdentity,
  num_classes: int,
  *,
  validation: float,
  test: float,
  split_seed: int,
  label_noise: float,
  train_examples: int | None,
) -> ImageData:
  """A set of the splits that it came with."""
  try:
    parts = choose_parts(
      {split: one.labels for split, one in splits.items()},
      validation=validation,
      test=test,
      split_seed=split_seed,
      train_examples=train_examples,
    )
  except ValueError as error:
    raise ValueError(f"{identity.name}: {error}") from error
  found = {
    role: splits[part.split].take(part.positions)
    for role, part in parts.items()
  }
  train = found["train"]
  if label_noise:
    train = mislabel(
      train, label_noise, num_classes=num_classes, seed=split_seed
    )
  return ImageData(
    identity.name,
    num_classes,
    train.images.shape[1:],
    train,
    found.get("validation"),
    found["test"],
    identity,
  )


def _by_name(arrays: Any, name: str) -> Mapping[str, Any]:
  """The arrays by name, of any form that is taken."""
  if isinstance(arrays, Mapping):
    return arrays
  pairs = arrays
  if isinstance(arrays, tuple | list) and len(arrays) in (2, 3):
    if not isinstance(arrays[0], tuple):
      pairs = [arrays]
    splits = ("train", "test") if len(pairs) < 3 else ("train", "val", "test")
    if all(isinstance(p, tuple | list) and len(p) in (2, 3) for p in pairs):
      return {
        f"{split}_{column}": array
        for split, pair in zip(splits, pairs, strict=False)
        for column, array in zip(("x", "y", "mask"), pair, strict=False)
      }
  raise ValueError(
    f"{name} gives {type(arrays).__name__}\n  allowed: arrays by name, {FORMS};"
    " or ((x_train, y_train), (x_test, y_test)); or (x, y)"
  )


def _splits(columns: Mapping[str, Any], name: str) -> dict[str, Split]:
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
      column: checked(
        columns[array], f"{name}: {array}", image=column == "images"
      )
      for (one, column), array in places.items()
      if one == split
    }
    splits[split] = _split(found, f"{name}, {split!r}")
  _check_alike(splits, name)
  return splits


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


def checked(
  array: Any, name: str, *, image: bool = False
) -> Shaped[np.ndarray, "n ..."]:
  """An array of a type that batches can hold: uint8 images, float32, int32."""
  try:
    array = np.asarray(array)
  except ValueError as error:  # rows of different lengths
    raise ValueError(f"{name} is no array: {error}") from error
  if array.dtype.kind not in "iuf" or not array.ndim:
    raise ValueError(
      f"{name} is {array.dtype} {list(array.shape)}\n  allowed: integers or"
      " floats, with a row for each example"
    )
  if array.dtype.kind == "f":
    bad = ~np.isfinite(array)
    if bad.any():
      raise ValueError(
        f"{name} has {int(bad.sum())} values that are not finite, the first in"
        f" row {int(np.argwhere(bad)[0][0])}\n  allowed: finite numbers"
      )
    return array.astype(np.float32, copy=False)
  if image and array.dtype == np.uint8 and array.ndim in (3, 4):
    return array[..., None] if array.ndim == 3 else array
  if array.size and (array.max() >= _LIMIT or array.min() < -_LIMIT):
    raise ValueError(f"{name} has integers beyond 32 bits")
  return array.astype(np.int32, copy=False)


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


def _check_labels(
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
  return num_classes
