"""Sets of one's own, opened by what their place holds."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from forgetsam.data._identity import SetIdentity
from forgetsam.data._split import ImageData, Split
from forgetsam.data.files import impossible_labels, in_words
from forgetsam.data.formats._array_files import array_bytes, read_arrays
from forgetsam.data.formats._arrays import assemble, from_arrays, read_splits
from forgetsam.data.formats._file_split import (
  ImageFiles,
  Pixels,
  look_at_pixels,
)
from forgetsam.data.formats._folders import find_image_folders
from forgetsam.data.formats._in_memory import decode_files
from forgetsam.data.formats._names import Place, find_files
from forgetsam.data.formats._parquet import find_parquet


class OwnSet(NamedTuple):
  """A set of one's own, found but not read.

  Attributes:
    path: the file or the folder.
    num_bytes: about what its arrays, or its images, decoded, take in memory.
    images: its image files and what they have in common; None of arrays.
  """

  path: Path
  num_bytes: int
  images: tuple[ImageFiles, Pixels] | None


def open_own(name: "str | OwnSet") -> OwnSet | None:
  """Finds the files of a set of one's own, and checks images' labels.

  Args:
    name: a path, as in `data.load`; or a set that is open, which is given back.

  Returns:
    What `data.load` and `data.stream` take; None for the name of a TFDS set.

  Raises:
    DatasetNotFoundError: nothing is there, or no files of a set.
    DataError: files are damaged, or do not make a set.
    ValueError: a label is none of the classes.
  """
  if isinstance(name, OwnSet):
    return name
  place = find_files(name)
  if place is None:
    return None
  if place.kind == "arrays":
    return OwnSet(place.path, array_bytes(place.path), None)
  found = _find_images(place)
  pixels = look_at_pixels(found)
  return OwnSet(place.path, pixels.total_bytes, (found, pixels))


def image_files(own: OwnSet) -> tuple[ImageFiles, Pixels]:
  """A set's image files, to be read with crops.

  Raises:
    ValueError: the set holds arrays.
  """
  if own.images is None:
    raise ValueError(
      f"{own.path} holds arrays, of which no crops are read\n  allowed:"
      " config.data.stream=false; those beyond config.data.memory_limit are"
      " read as they are needed"
    )
  return own.images


def load_own(
  own: OwnSet, memory_limit: float | None, **choices: Any
) -> ImageData:
  """Holds a set in memory, but for arrays beyond the limit.

  `choices` are those of `data.load`.
  """
  name = str(own.path)
  if own.images is None:
    arrays = read_arrays(own.path, memory_limit)
    return from_arrays(arrays, name=name, memory_limit=memory_limit, **choices)
  found, pixels = own.images
  splits, identity = decode_files(found, pixels)
  return assemble(splits, identity, len(found.classes), **choices)


def load_own_split(
  own: OwnSet, split: str, memory_limit: float | None = None
) -> tuple[Split, int, SetIdentity]:
  """One split, the number of classes, and what the set was."""
  if own.images is None:
    arrays, name = read_arrays(own.path, memory_limit), str(own.path)
    splits, classes, identity = read_splits(
      arrays, name, memory_limit=memory_limit
    )
    names = list(splits)
  else:
    found, pixels = own.images
    classes, names = len(found.classes), list(found.splits)
    splits, identity = decode_files(found, pixels, split)
  if split not in splits:
    raise ValueError(
      f"{own.path} has no split {split!r}; its splits are {', '.join(names)}"
    )
  prints = {split: identity.splits[split]}
  return splits[split], classes, identity._replace(splits=prints)


def _find_images(place: Place) -> ImageFiles:
  find = find_parquet if place.kind == "parquet" else find_image_folders
  found = find(place.path)
  if len(found.classes) < 2:
    raise ValueError(
      f"{place.path} has the classes {list(found.classes)}; it must have two or"
      " more, or there is nothing to tell apart"
    )
  for split in found.splits.values():
    if not len(split.labels):
      raise ValueError(f"{split.name} is empty")
    positions, classes = np.arange(len(split.labels)), len(found.classes)
    if bad := impossible_labels(split.labels, positions, classes):
      raise ValueError(in_words(split.name, bad, classes))
  return found
