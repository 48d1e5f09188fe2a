"""Sets that fit in memory, read and decoded once."""

from typing import TYPE_CHECKING

import numpy as np

from forgetsam.data._batches import PerChannel
from forgetsam.data._choices import choose
from forgetsam.data._identity import identify
from forgetsam.data._memory_source import MemorySource
from forgetsam.data._prepared import class_features, prepared_builder
from forgetsam.data._search import PathLike
from forgetsam.data._split import ImageData, Split, mislabel
from forgetsam.data._subsets import check_fraction
from forgetsam.data.files import decode_split, pixels_fingerprint
from forgetsam.data.formats import (
  OwnSet,
  load_own,
  load_own_split,
  open_own,
)

if TYPE_CHECKING:
  import tensorflow_datasets as tfds


def load(
  name: str | OwnSet,
  *,
  data_dir: PathLike | None = None,
  validation: float = 0.0,
  split_seed: int = 0,
  label_noise: float = 0.0,
  train_examples: int | None = None,
  test: float = 0.2,
  memory_limit: float | None = None,
) -> ImageData:
  """Reads a data set into memory.

  A TFDS set needs the features `image`, of one fixed shape, and `label`, and
  the splits `train` and `test`. First validation examples are held out of
  `train`, then the training examples are chosen from the rest, then some of
  their labels are changed. All three depend on `split_seed` alone, and a larger
  choice contains a smaller one. Test and validation labels stay as they are.

  A set of one's own is an .npz file, or a folder of .npy files, with arrays as
  `data.from_arrays` takes them; a folder with a folder of images for each
  class, within `train`, `validation` and `test` or without; or Parquet files of
  images and labels, as Hugging Face writes them. Its validation split is used
  where it has one. Positions are in the order of its sorted files.

  Args:
    name: a TFDS name, such as `digits` (built on first use, offline) or
      `fashion_mnist`; a path, such as `./photos` or `measured.npz`; or what
      `data.open_own` gives.
    data_dir: the directory that holds prepared sets. None: TFDS's own rules.
    validation: fraction of the `train` split held out, classes in proportion;
      0 holds out nothing.
    split_seed: seed of every choice made here, not of the run.
    label_noise: fraction of the training labels that are changed to another
      class, each other class being as likely.
    train_examples: number of training examples, classes in proportion; None
      takes all that are not held out.
    test: as in `data.from_arrays`, of sets of one's own.
    memory_limit: as in `data.from_arrays`, of .npy files; an .npz file beyond
      it is refused.

  Returns:
    The splits, each in the order of TFDS.

  Raises:
    DatasetNotFoundError: where the set is not on this machine.
    DataError: a file is damaged.
    ValueError: where the set or an argument does not fit.
  """
  if split_seed < 0:
    raise ValueError(f"split_seed={split_seed} must not be negative")
  check_fraction(validation)
  if (own := open_own(name)) is not None:
    return load_own(
      own,
      memory_limit,
      validation=validation,
      test=test,
      split_seed=split_seed,
      label_noise=label_noise,
      train_examples=train_examples,
    )
  assert isinstance(name, str)  # an OwnSet is returned by now
  builder = prepared_builder(name, data_dir)
  num_classes, image_shape = _check_features(name, builder.info)
  full = decode_split(builder, "train")
  scored = decode_split(builder, "test")
  identity = identify(
    builder.info,
    {"train": pixels_fingerprint(full), "test": pixels_fingerprint(scored)},
  )
  chosen, held_out = choose(
    full.labels[:],
    validation=validation,
    split_seed=split_seed,
    train_examples=train_examples,
  )
  train = full.take(chosen)
  if label_noise:
    train = mislabel(
      train, label_noise, num_classes=num_classes, seed=split_seed
    )
  return ImageData(
    name,
    num_classes,
    image_shape,
    train,
    None if held_out is None else full.take(held_out),
    scored,
    identity,
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
  if (own := open_own(name)) is not None:
    return load_own_split(own, split)[0]
  builder = prepared_builder(name, data_dir)
  _check_features(name, builder.info)
  if split not in builder.info.splits:
    raise ValueError(
      f"Data set {name!r} has no split {split!r}; its splits are"
      f" {', '.join(builder.info.splits)}"
    )
  return decode_split(builder, split)


def array_split(
  own: OwnSet | None,
  split: str,
  *,
  mean: PerChannel,
  std: PerChannel,
  memory_limit: float | None = None,
) -> MemorySource | None:
  """A split of arrays in files, to be scored; None for other sets.

  Args:
    own: what `data.open_own` gives.
    split: "train", "validation" or "test", of the file's own splits.
    mean: as in `data.train_batches`, where the arrays are images.
    std: as in `data.train_batches`, where the arrays are images.
    memory_limit: as in `data.load`.

  Raises:
    DatasetNotFoundError: where the set is not on this machine.
    DataError: a file is damaged.
    ValueError: where the set or the split does not fit.
  """
  if own is None or own.images is not None:
    return None
  found, classes, identity = load_own_split(own, split, memory_limit)
  if found.has_pixels:
    return MemorySource(found, classes, mean, std, identity=identity)
  return MemorySource(found, classes, identity=identity)


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
