"""TFDS sets that fit in memory, decoded once."""

from typing import TYPE_CHECKING

import numpy as np

from forgetsam.data._identity import identify
from forgetsam.data._prepared import class_features, prepared_builder
from forgetsam.data._search import PathLike
from forgetsam.data._split import ImageData, Split, mislabel
from forgetsam.data._subsets import (
  Purpose,
  check_fraction,
  complement,
  draws,
  split_sizes,
  stratified,
)
from forgetsam.data.files import decode_split, pixels_fingerprint

if TYPE_CHECKING:
  import tensorflow_datasets as tfds


def load(
  name: str,
  *,
  data_dir: PathLike | None = None,
  validation: float = 0.0,
  split_seed: int = 0,
  label_noise: float = 0.0,
  train_examples: int | None = None,
) -> ImageData:
  """Decodes an image classification set into memory.

  The set needs the features `image`, of one fixed shape, and `label`, and the
  splits `train` and `test`. First validation examples are held out of `train`,
  then the training examples are chosen from the rest, then some of their
  labels are changed. All three depend on `split_seed` alone, and a larger
  choice contains a smaller one. Test and validation labels stay as they are.

  Args:
    name: a TFDS name, such as `digits` (built on first use, offline) or
      `fashion_mnist`.
    data_dir: the directory that holds prepared sets. None: TFDS's own rules.
    validation: fraction of the `train` split held out, classes in proportion;
      0 holds out nothing.
    split_seed: seed of every choice made here, not of the run.
    label_noise: fraction of the training labels that are changed to another
      class, each other class being as likely.
    train_examples: number of training examples, classes in proportion; None
      takes all that are not held out.

  Returns:
    The splits, each in the order of TFDS.

  Raises:
    DatasetNotFoundError: where the set is not on this machine.
    ValueError: where the set or an argument does not fit.
  """
  if split_seed < 0:
    raise ValueError(f"split_seed={split_seed} must not be negative")
  check_fraction(validation)
  builder = prepared_builder(name, data_dir)
  num_classes, image_shape = _check_features(name, builder.info)
  full = decode_split(builder, "train")
  test = decode_split(builder, "test")
  identity = identify(
    builder.info,
    {"train": pixels_fingerprint(full), "test": pixels_fingerprint(test)},
  )
  num_held_out, num_train = split_sizes(len(full), validation, train_examples)
  held_out, train = None, full
  if num_held_out:
    keys = draws(len(full), seed=split_seed, purpose=Purpose.VALIDATION)
    chosen = stratified(full.labels, num_held_out, keys)
    held_out = full.take(chosen)
    train = full.take(complement(len(full), chosen))
  if train_examples is not None:
    # Drawn for the whole split: what validation takes does not change the rest.
    keys = draws(len(full), seed=split_seed, purpose=Purpose.TRAIN_SUBSET)
    train = train.take(stratified(train.labels, num_train, keys[train.ids]))
  if label_noise:
    train = mislabel(
      train, label_noise, num_classes=num_classes, seed=split_seed
    )
  return ImageData(
    name, num_classes, image_shape, train, held_out, test, identity
  )


def load_split(
  name: str, split: str, *, data_dir: PathLike | None = None
) -> Split:
  """Decodes another split of a set that `load` can hold, to be scored.

  Args:
    name: as in `load`.
    split: a name among the set's splits, such as `test_conflict`.
    data_dir: as in `load`.

  Returns:
    The whole split, in the order of TFDS.

  Raises:
    DatasetNotFoundError: where the set is not on this machine.
    ValueError: where the set or the split does not fit.
  """
  builder = prepared_builder(name, data_dir)
  _check_features(name, builder.info)
  if split not in builder.info.splits:
    raise ValueError(
      f"Data set {name!r} has no split {split!r}; its splits are"
      f" {', '.join(builder.info.splits)}"
    )
  return decode_split(builder, split)


def _check_features(
  name: str, info: "tfds.core.DatasetInfo"
) -> tuple[int, tuple[int, int, int]]:
  """The number of classes and the images' shape, of a set that can be held."""
  image, label = class_features(info)
  if None in image.shape or image.np_dtype != np.uint8:
    crop = ""
    if image.np_dtype == np.uint8:
      crop = "; data.stream (config.data.stream=true) crops them to one"
    raise ValueError(
      f"Data set {name!r} cannot be held in memory as it is: images must be"
      f" uint8 and of one shape, and are {image.np_dtype} {image.shape}{crop}"
    )
  missing = [split for split in ("train", "test") if split not in info.splits]
  if missing:
    raise ValueError(
      f"Data set {name!r} has no split {' and no split '.join(missing)}; its"
      f" splits are {', '.join(info.splits)}"
    )
  return label.num_classes, tuple(image.shape)
