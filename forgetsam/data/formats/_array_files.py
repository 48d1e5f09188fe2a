"""Arrays in .npz and .npy files."""

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from forgetsam.data._errors import DataError


def read_arrays(
  path: Path, memory_limit: float | None = None
) -> Mapping[str, Any]:
  """The arrays of an .npz file, or of a folder's .npy files, by name.

  Those of a folder are mapped: rows are read when they are used.

  Raises:
    DataError: a file is damaged, or holds objects rather than numbers.
    ValueError: an .npz file has more than `memory_limit` GiB.
  """
  if not path.is_file():
    return _map(path)
  if beyond(size := array_bytes(path), memory_limit):
    raise ValueError(
      f"{path} holds {size / 2**20:.3g} MiB of arrays, and is read as a whole\n"
      f"  allowed: at most config.data.memory_limit={memory_limit:g} GiB; or"
      " a folder of .npy files, which are read row by row: unpack it by"
      f" `python -m zipfile -e {path} {path.with_suffix('')}`"
    )
  # Opened here: NumPy leaves a damaged file open.
  with _named(path), path.open("rb") as opened, np.load(opened) as file:
    return {name: _member(path, file, name) for name in file.files}


def array_bytes(path: Path) -> int:
  """The size of a set's arrays; no more than their headers is read.

  Raises:
    DataError: a file is damaged.
  """
  if not path.is_file():
    return sum(array.nbytes for array in _map(path).values())
  if not zipfile.is_zipfile(path):  # NumPy would take it for a pickle
    raise DataError(
      f"{path} cannot be read: it is no .npz file, or was cut short\n"
      "  allowed: the file as numpy.savez wrote it; copy or save it again"
    )
  with _named(path), zipfile.ZipFile(path) as file:
    return sum(member.file_size for member in file.infolist())


def _map(folder: Path) -> dict[str, np.ndarray]:
  arrays: dict[str, np.ndarray] = {}
  for one in sorted(folder.glob("*.npy")):
    with _named(one):
      arrays[one.stem] = np.lib.format.open_memmap(one, mode="r")
  if not arrays:
    raise DataError(
      f"{folder} holds no arrays\n  allowed: one .npz file by its own name, or"
      " a folder of .npy files, such as images.npy and labels.npy"
    )
  return arrays


def beyond(num_bytes: int, memory_limit: float | None) -> bool:
  """Whether a set is not to be held in memory; the limit is in GiB."""
  return memory_limit is not None and num_bytes > memory_limit * 2**30


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
    if any(word in str(error) for word in ("pickle", "Python objects")):
      hint = (
        "arrays of numbers: objects are programs, and are not loaded; save the"
        " numbers with numpy.savez"
      )
    raise DataError(
      f"{what} cannot be read: {error}\n  allowed: {hint}"
    ) from error
