"""Sets of arrays that a caller has."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging

from forgetsam.data._choices import choose_parts
from forgetsam.data._identity import SetIdentity
from forgetsam.data._split import ImageData, Split, mislabel
from forgetsam.data.files import pixels_fingerprint
from forgetsam.data.formats._array_files import beyond
from forgetsam.data.formats._array_names import FORMS
from forgetsam.data.formats._columns import check_labels, make_splits


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
  memory_limit: float | None = None,
) -> ImageData:
  """A set of arrays: images, vectors, token sequences, with any labels.

  Images are uint8 `[n, height, width]` or `[n, height, width, channels]`, and
  batches hold them normalised. Other inputs `[n, ...]` are as they are: floats
  as float32, integers as int32. Labels are integers: classes `[n]`, or of each
  position `[n, ...]`, or one-hot `[n, K]`; or floats `[n, ...]`, the targets of
  a regression. Weights `[n]` or of the labels' shape reach losses and metrics
  as the batch's "mask"; where one is 0, the label may be -1. Integers "group"
  `[n]` name the groups of examples whose accuracies are scored.

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
    memory_limit: GiB beyond which arrays, such as mapped files, stay where they
      lie and are read as batches need them; None holds all in memory.

  Returns:
    The splits, for `data.in_memory`. Batches do not depend on where arrays lie.

  Raises:
    ValueError: an array is missing, does not fit the others, or holds what is
      no number.

  Example:
    >>> import numpy as np
    >>> x, y = np.ones((10, 3)), np.arange(10) % 2
    >>> images = from_arrays((x, y), validation=0.25)
    >>> len(images.train), len(images.validation), len(images.test)
    (6, 2, 2)
    >>> images.image_shape, images.num_classes
    ((3,), 2)
  """
  splits, num_classes, identity = read_splits(
    arrays, name, num_classes, memory_limit
  )
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
  arrays: Any,
  name: str,
  num_classes: int | None = None,
  memory_limit: float | None = None,
) -> tuple[dict[str, Split], int, SetIdentity]:
  """The splits that arrays make, the number of classes, and what they were."""
  columns = dict(_by_name(arrays, name))
  if "num_classes" in columns:
    num_classes = _whole(columns.pop("num_classes"), f"{name}: num_classes")
  columns = {
    key: _as_array(one, f"{name}: {key}") for key, one in columns.items()
  }
  size = sum(array.nbytes for array in columns.values())
  streamed = beyond(size, memory_limit)
  if memory_limit is not None:
    logging.info(
      "%s is %s: its arrays take about %.3g MiB (config.data.memory_limit=%g)",
      name,
      "streamed" if streamed else "held in memory",
      size / 2**20,
      memory_limit,
    )
  splits, found = make_splits(columns, name, streamed=streamed)
  num_classes = check_labels(splits, name, num_classes or found)
  prints = {split: pixels_fingerprint(one) for split, one in splits.items()}
  return splits, num_classes, SetIdentity(name, prints)


def _whole(number: Any, name: str) -> int:
  array = np.asarray(number)
  if array.ndim or array.dtype.kind not in "iu":
    raise ValueError(f"{name} is {number!r}\n  allowed: a whole number")
  return int(array)


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


def _as_array(array: Any, name: str) -> np.ndarray:
  if isinstance(array, np.memmap):  # of which np.asarray forgets the file
    return array
  try:
    return np.asarray(array)
  except ValueError as error:  # rows of different lengths
    raise ValueError(f"{name} is no array: {error}") from error


def _by_name(arrays: Any, name: str) -> Mapping[str, Any]:
  """The arrays by name, of any form that is taken."""
  if isinstance(arrays, Mapping):
    return {str(key): array for key, array in arrays.items()}
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
