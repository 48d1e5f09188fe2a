"""Arrays in .npz and .npy files."""

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from forgetsam.data._errors import DataError


def read_arrays(path: Path) -> Mapping[str, Any]:
  """The arrays of an .npz file, or of a folder's .npy files, by name.

  Raises:
    DataError: a file is damaged, or holds objects rather than numbers.
  """
  if path.is_file():
    if not zipfile.is_zipfile(path):  # NumPy would take it for a pickle
      raise DataError(
        f"{path} cannot be read: it is no .npz file, or was cut short\n"
        "  allowed: the file as numpy.savez wrote it; copy or save it again"
      )
    # Opened here: NumPy leaves a damaged file open.
    with _named(path), path.open("rb") as opened, np.load(opened) as file:
      return {name: _member(path, file, name) for name in file.files}
  arrays = {}
  for one in sorted(path.glob("*.npy")):
    with _named(one), one.open("rb") as opened:
      arrays[one.stem] = np.load(opened)
  if not arrays:
    raise DataError(
      f"{path} holds no arrays\n  allowed: one .npz file by its own name, or a"
      " folder of .npy files, such as images.npy and labels.npy"
    )
  return arrays


def _member(path: Path, file: Any, name: str) -> np.ndarray:
  with _named(f"{path}, array {name!r},"):
    array: np.ndarray = file[name]
    return array


@contextmanager
def _named(what: Any) -> Iterator[None]:
  """Says which file an error is about."""
  try:
    yield
  except DataError:
    raise
  except (
    EOFError,
    OSError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
  ) as error:
    hint = "the file as it was written; copy or save it again"
    if "allow_pickle" in str(error) or "pickled" in str(error):
      hint = (
        "arrays of numbers: objects are programs, and are not loaded; save the"
        " numbers with numpy.savez"
      )
    raise DataError(
      f"{what} cannot be read: {error}\n  allowed: {hint}"
    ) from error
