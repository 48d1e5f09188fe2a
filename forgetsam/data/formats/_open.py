"""Sets of one's own, opened by what their place holds."""

from typing import Any

import numpy as np

from forgetsam.data._identity import SetIdentity
from forgetsam.data._split import ImageData, Split
from forgetsam.data.files import impossible_labels, in_words
from forgetsam.data.formats._array_files import read_arrays
from forgetsam.data.formats._arrays import assemble, from_arrays, read_splits
from forgetsam.data.formats._file_split import ImageFiles, look_at_pixels
from forgetsam.data.formats._folders import find_image_folders
from forgetsam.data.formats._in_memory import decode_files
from forgetsam.data.formats._names import Place
from forgetsam.data.formats._parquet import find_parquet


def open_files(place: Place) -> ImageFiles:
  """Finds a set's image files, and checks their labels.

  Raises:
    DataError: files are damaged, or do not make a set.
    ValueError: a label is none of the classes, or the set holds arrays.
  """
  if place.kind == "arrays":
    raise ValueError(
      f"{place.path} holds arrays, which are held in memory\n  allowed:"
      " config.data.stream=false"
    )
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


def load_place(place: Place, **choices: Any) -> ImageData:
  """Holds a set of one's own in memory; `choices` are those of `data.load`."""
  if place.kind == "arrays":
    return from_arrays(read_arrays(place.path), name=str(place.path), **choices)
  found = open_files(place)
  splits, identity = decode_files(found)
  return assemble(splits, identity, len(found.classes), **choices)


def load_place_split(
  place: Place, split: str
) -> tuple[Split, int, SetIdentity]:
  """One split, the number of classes, and what the set was."""
  if place.kind == "arrays":
    name = str(place.path)
    splits, classes, identity = read_splits(read_arrays(place.path), name)
  else:
    found = open_files(place)
    classes = len(found.classes)
    splits, identity = decode_files(found, split)
  if split not in splits:
    raise ValueError(
      f"{place.path} has no split {split!r}; its splits are"
      f" {', '.join(splits or found.splits)}"
    )
  prints = {split: identity.splits[split]}
  return splits[split], classes, identity._replace(splits=prints)


def decoded_bytes(place: Place) -> int:
  """About how much memory the set's images take; 0 for arrays."""
  if place.kind == "arrays":
    return 0
  return look_at_pixels(open_files(place)).total_bytes
