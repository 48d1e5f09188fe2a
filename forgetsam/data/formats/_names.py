"""Names of sets that are files of one's own."""

import os
from pathlib import Path
from typing import NamedTuple

from forgetsam._paths import local_path
from forgetsam.data._errors import DatasetNotFoundError

_SUFFIXES = {".npz": "arrays", ".npy": "arrays", ".parquet": "parquet"}
_STARTS = ("/", "./", "../", "~", "file:")


class Place(NamedTuple):
  """Where a set of one's own lies.

  Attributes:
    path: a file or a folder, from the root.
    kind: "arrays", "parquet" or "images".
  """

  path: Path
  kind: str


def find_files(name: str) -> Place | None:
  """The place that a name means; None for the name of a TFDS set.

  A path begins with `/`, `./`, `../` or `~`, ends as these files do, or has a
  slash and is there. `cifar10/1.0.0` is TFDS's folder where TFDS wrote it.

  Raises:
    DatasetNotFoundError: nothing is there, or no files of a set.
    ValueError: the path is none of this machine.
  """
  written = name.startswith(_STARTS) or name in (".", "..")
  written = written or Path(name).suffix in _SUFFIXES
  if not written and not ("/" in name and _is_own_folder(Path(name))):
    return None
  path = Path(os.path.abspath(local_path("data.name", name)))
  if not path.exists():
    raise DatasetNotFoundError(
      f"there is no file or folder {path}. A relative path is looked for in the"
      f" working directory, {Path.cwd()}"
    )
  if path.is_file():
    return _of_file(path)
  return Place(path, _kind_of_folder(path))


def _of_file(path: Path) -> Place:
  kind = _SUFFIXES.get(path.suffix)
  if kind is None:
    raise DatasetNotFoundError(
      f"{path} is no file of a known format\n  allowed: .npz, .parquet, a"
      " folder of .npy or .parquet files, or a folder with a folder of images"
      " for each class"
    )
  if path.suffix == ".npy":
    raise DatasetNotFoundError(
      f"{path} is one array\n  allowed: the folder that holds it beside the"
      f" others, such as images.npy and labels.npy: {path.parent}"
    )
  return Place(path, kind)


def _kind_of_folder(path: Path) -> str:
  if any(path.glob("*.npy")):
    return "arrays"
  return "parquet" if _holds_parquet(path, levels=2) else "images"


def _holds_parquet(path: Path, levels: int) -> bool:
  """Looks into the first folders only: a set may have millions of images."""
  if any(path.glob("*.parquet")):
    return True
  with os.scandir(path) as entries:
    first = sorted(e.path for e in entries if levels and e.is_dir())[:4]
  return any(_holds_parquet(Path(folder), levels - 1) for folder in first)


def _is_own_folder(path: Path) -> bool:
  """Whether there is a folder that TFDS did not write."""
  if not path.is_dir():
    return False
  written = [*path.glob("dataset_info.json"), *path.glob("*/dataset_info.json")]
  return not written
