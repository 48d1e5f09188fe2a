"""Sets of one's own: arrays, and files that are found by their path."""

from forgetsam.data.formats._array_files import read_arrays
from forgetsam.data.formats._arrays import assemble, from_arrays
from forgetsam.data.formats._names import Place, find_files

__all__ = ["Place", "assemble", "find_files", "from_arrays", "read_arrays"]
