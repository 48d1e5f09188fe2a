"""Images in files, decoded into memory."""

import os
from typing import Any

import numpy as np

from forgetsam.data._errors import DataError
from forgetsam.data._identity import SetIdentity
from forgetsam.data._split import Split
from forgetsam.data._tensorflow import tf
from forgetsam.data.files import (
  Checker,
  check_image,
  decode,
  in_order,
  pixels_fingerprint,
)
from forgetsam.data.formats._file_split import (
  FileSplit,
  ImageFiles,
  Pixels,
)


def decode_files(
  found: ImageFiles, pixels: Pixels, only: str | None = None
) -> tuple[dict[str, Split], SetIdentity]:
  """Decodes all splits of a set, or one, and identifies it.

  Raises:
    DataError: an image is damaged; it is named.
    ValueError: images differ in size.
  """
  if pixels.differ:
    raise ValueError(_too_different(found, pixels.differ))
  splits = {
    name: _decode(found, split, pixels)
    for name, split in found.splits.items()
    if only in (None, name)
  }
  prints = {name: pixels_fingerprint(one) for name, one in splits.items()}
  return splits, SetIdentity(str(found.path), prints, found.named_classes)


def _decode(found: ImageFiles, split: FileSplit, pixels: Pixels) -> Split:
  count = len(split.labels)
  positions = np.arange(count)
  records, store, parse = split.open(positions)
  channels, threads = pixels.channels, os.cpu_count() or 1

  def image(contents: Any) -> Any:
    return decode(parse(contents)[0], channels)

  examples = in_order(records, store).map(
    tf.autograph.experimental.do_not_convert(image),
    num_parallel_calls=threads,
    deterministic=True,
  )
  images: np.ndarray | None = None
  try:
    for position, one in enumerate(examples.as_numpy_iterator()):
      if images is None:
        images = np.empty((count, *one.shape), np.uint8)
      if one.shape != images.shape[1:]:
        text = (
          f"{split.where(0)} is {_size(images[0])},"
          f" {split.where(position)} is {_size(one)}"
        )
        raise ValueError(_too_different(found, text))
      images[position] = one
  except tf.errors.OpError as error:
    check = check_image(parse, channels=channels)
    checker = Checker(split.name, records, check, threads, store)
    text = checker.describe(records.origins()) or f"{split.name}: {error}"
    raise DataError(text) from error
  assert images is not None  # splits have examples
  return Split(images, split.labels, positions)


def _size(image: np.ndarray) -> str:
  return f"{image.shape[1]}x{image.shape[0]}"


def _too_different(found: ImageFiles, differ: str) -> str:
  return (
    f"the images of {found.path} differ in size, {differ}: they cannot be held"
    " in memory as they are\n  allowed: images of one size; or"
    " config.data.stream=true, which crops them to config.data.image_size"
  )
