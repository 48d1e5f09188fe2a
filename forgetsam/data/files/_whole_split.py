"""Whole splits, decoded into memory."""

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from forgetsam.data._errors import DataError
from forgetsam.data._split import Split
from forgetsam.data._tensorflow import import_tensorflow, tf
from forgetsam.data.files._checks import Checker, reason
from forgetsam.data.files._groups import find_groups
from forgetsam.data.files._images import check_image, decode_other, parser
from forgetsam.data.files._labels import impossible_labels, in_words
from forgetsam.data.files._records import find_records

if TYPE_CHECKING:
  import tensorflow_datasets as tfds

_DECODE_BATCH = 512


def decode_split(builder: "tfds.core.DatasetBuilder", split: str) -> Split:
  """Decodes a split of uint8 images of one shape, in the order of its files.

  Raises:
    DataError: an example is corrupt; it is named.
    ValueError: examples are missing or have no label.
  """
  import_tensorflow()  # before TFDS does, without this project's settings
  import tensorflow_datasets as tfds

  if not builder.info.splits[split].num_examples:
    raise ValueError(f"Split {split!r} of {builder.info.full_name} is empty")
  try:
    dataset = builder.as_dataset(
      split,
      shuffle_files=False,
      decoders=_decoders(builder.info),
      # One file after the other: the order is then a property of the set.
      read_config=tfds.ReadConfig(
        interleave_cycle_length=1, try_autocache=False
      ),
    )
  except (ImportError, NotImplementedError):  # not a format of tf.data
    find_records(builder, split)  # says so
    raise
  count = builder.info.splits[split].num_examples
  images = np.empty((count, *builder.info.features["image"].shape), np.uint8)
  labels = np.empty(count, np.int32)
  groups = find_groups(builder.info.features)
  members = np.empty(count, np.int64)
  filled = 0
  batches = dataset.batch(_DECODE_BATCH).prefetch(tf.data.AUTOTUNE)
  try:
    for batch in batches.as_numpy_iterator():
      here = slice(filled, filled + len(batch["label"]))
      images[here], labels[here] = batch["image"], batch["label"]
      if groups is not None:
        members[here] = batch[groups.feature]
      filled = here.stop
  except tf.errors.OpError as error:
    raise DataError(_explain(builder, split, error)) from error
  name = f"Split {split!r} of {builder.info.full_name}"
  if filled != count:
    raise ValueError(
      f"{name} must hold {count} examples, and {filled} were read; prepare the"
      " set again, or choose another"
    )
  classes = builder.info.features["label"].num_classes
  if found := impossible_labels(labels, np.arange(count), classes):
    raise ValueError(in_words(name, found, classes))
  masks = {} if groups is None else groups.masks(labels, members)
  return Split(images, labels, np.arange(count), groups=masks)


def _decoders(info: "tfds.core.DatasetInfo") -> Any:
  """Decodes images of more formats than TFDS; of the rest, labels alone."""
  import tensorflow_datasets as tfds

  @tfds.decode.make_decoder(output_dtype=tf.uint8)
  def image(encoded: "tf.Tensor", feature: Any) -> "tf.Tensor":
    return decode_other(encoded, feature.shape[-1])

  decoders = {"image": image()}
  # TFDS warns of its own deprecated calls when it decodes in part.
  others = [f for name, f in info.features.items() if name != "image"]
  if all(isinstance(f, tfds.features.ClassLabel) for f in others):
    return decoders
  groups = find_groups(info.features)
  read = {"image": True, "label": True}
  if groups is not None:
    read[groups.feature] = True
  return tfds.decode.PartialDecoding(read, decoders=decoders)


def _explain(
  builder: "tfds.core.DatasetBuilder", split: str, error: Exception
) -> str:
  """Why a split could not be read: the first corrupt example, if any is."""
  name = f"Split {split!r} of {builder.info.full_name}"
  features = builder.info.features
  unread = (
    f"{name} cannot be read: {reason(error)}\n  allowed: the set as it was"
    " prepared; or remove its folder and prepare it again"
  )
  try:
    records = find_records(builder, split)
  except ValueError:  # in another format
    return unread
  check = check_image(
    parser(features, "label"), channels=features["image"].shape[-1]
  )
  checker = Checker(name, records, check, os.cpu_count() or 1)
  text = checker.describe(records.origins())
  return text or unread
