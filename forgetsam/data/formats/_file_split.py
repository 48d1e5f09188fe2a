"""A split in files of one's own: what reads it, and what it holds."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from absl import logging
from jaxtyping import Int32, Int64

from forgetsam._lab import lab_packages
from forgetsam.data._errors import DataError
from forgetsam.data.files import Parse, Records, Store

# Image files whose headers are read, of each split.
_SAMPLE = 256
_GREY = ("1", "L", "LA", "I", "I;16", "I;16B", "F")


@runtime_checkable
class FileSplit(Protocol):
  """Labelled images in files.

  Attributes:
    name: the set's and the split's, for messages.
    labels: of all examples, in the order of the files.
  """

  name: str
  labels: Int32[np.ndarray, " n"]

  def shuffled(
    self, positions: Int64[np.ndarray, " m"]
  ) -> Int64[np.ndarray, " m"]:
    """The order in which a stream stores chosen examples, always the same."""

  def open(
    self, positions: Int64[np.ndarray, " m"]
  ) -> tuple[Records, Store, Parse]:
    """Records of chosen examples, in that order, and what reads them."""

  def check_stream(self) -> None:
    """Raises a DataError where too much of a file is read at once."""

  def encoded(self, position: int) -> bytes:
    """An image's file."""

  def where(self, position: int) -> str:
    """The place of an example, for messages."""

  def digest(self) -> str:
    """A digest of what can be seen without reading images."""

  @property
  def num_bytes(self) -> int:
    """The size of the files."""


class ImageFiles(NamedTuple):
  """A set of labelled images in files.

  Attributes:
    path: the file or the folder.
    splits: by the names "train", "validation" and "test".
    classes: the names of the classes.
  """

  path: Path
  splits: dict[str, FileSplit]
  classes: Sequence[str]

  @property
  def named_classes(self) -> Sequence[str]:
    """Names of the classes; none where they are numbers in their order."""
    numbers = map(str, range(len(self.classes)))
    return () if list(self.classes) == list(numbers) else self.classes


class Pixels(NamedTuple):
  """Sizes and channels that images have in common.

  Attributes:
    height: in pixels; None where it varies.
    width: in pixels; None where it varies.
    channels: 1 where all are grey, or 3.
    total_bytes: about what they take in memory, decoded.
    differ: in words, where sizes do.
    broken: the first of these that is no image, by its split.
  """

  height: int | None
  width: int | None
  channels: int
  total_bytes: int
  differ: str
  broken: Mapping[str, str]

  @property
  def shape(self) -> tuple[int | None, int | None, int]:
    """Height, width and channels."""
    return self.height, self.width, self.channels


def look_at_pixels(found: ImageFiles) -> Pixels:
  """Reads the headers of some images all over the set.

  Raises:
    DataError: none of them is an image.
  """
  with lab_packages("reading images"):
    from PIL import Image, UnidentifiedImageError

  sizes: dict[tuple[int, int], str] = {}
  areas, grey = [], []
  count, problem = 0, ""
  broken: dict[str, str] = {}
  for name, split in found.splits.items():
    number = len(split.labels)
    count += number
    for position in np.unique(np.linspace(0, number - 1, _SAMPLE).astype(int)):
      try:
        with Image.open(io.BytesIO(split.encoded(int(position)))) as image:
          size, mode = image.size, image.mode
      except Exception as error:  # of every format, its own
        unknown = isinstance(error, UnidentifiedImageError)
        text = "it is no image file of a known format" if unknown else error
        place = f"{split.where(int(position))}: {text}"
        problem = problem or place
        if unknown:
          broken.setdefault(name, place)
        continue
      sizes.setdefault(size, split.where(int(position)))
      areas.append(size[0] * size[1])
      grey.append(mode in _GREY)
  if not sizes:
    raise DataError(f"{found.path} holds no image that can be read: {problem}")
  if any(grey) and not all(grey):
    logging.warning(
      "%s holds grey and colour images; all are read as RGB", found.path
    )
  channels = 1 if all(grey) else 3
  total = int(count * np.mean(areas)) * channels
  if len(sizes) == 1:
    [(width, height)] = sizes
    return Pixels(height, width, channels, total, "", broken)
  two = list(sizes.items())[:2]
  words = ", ".join(f"{place} is {w}x{h}" for (w, h), place in two)
  return Pixels(None, None, channels, total, words, broken)
