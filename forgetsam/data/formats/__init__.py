"""Sets of one's own: arrays, and files that are found by their path."""

from forgetsam.data.formats._arrays import from_arrays
from forgetsam.data.formats._file_split import (
  FileSplit,
  ImageFiles,
  Pixels,
)
from forgetsam.data.formats._names import find_files
from forgetsam.data.formats._open import (
  OwnSet,
  image_files,
  load_own,
  load_own_split,
  open_own,
)

__all__ = [
  "FileSplit",
  "ImageFiles",
  "OwnSet",
  "Pixels",
  "find_files",
  "from_arrays",
  "image_files",
  "load_own",
  "load_own_split",
  "open_own",
]
