"""Sets of one's own: arrays, and files that are found by their path."""

from forgetsam.data.formats._arrays import from_arrays
from forgetsam.data.formats._file_split import (
  FileSplit,
  ImageFiles,
  Pixels,
  look_at_pixels,
)
from forgetsam.data.formats._names import Place, find_files
from forgetsam.data.formats._open import (
  decoded_bytes,
  load_place,
  load_place_split,
  open_files,
)

__all__ = [
  "FileSplit",
  "ImageFiles",
  "Pixels",
  "Place",
  "decoded_bytes",
  "find_files",
  "from_arrays",
  "load_place",
  "load_place_split",
  "look_at_pixels",
  "open_files",
]
