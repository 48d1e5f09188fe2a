"""Names of sets that are files of one's own."""

import json
import os
import re
from pathlib import Path
from typing import NamedTuple

from forgetsam._paths import local_path
from forgetsam.data._errors import DataError, DatasetNotFoundError
from forgetsam.data.formats._array_names import split_in

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
  written = written or Path(name).suffix.lower() in _SUFFIXES
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
  if infos := _written_by_tfds(path):
    _refuse_prepared(path, infos[0])
  return Place(path, _kind_of_folder(path))


def _of_file(path: Path) -> Place:
  kind = _SUFFIXES.get(path.suffix.lower())
  if kind is None:
    raise DatasetNotFoundError(
      f"{path} is no file of a known format\n  allowed: .npz, .parquet, a"
      " folder of .npy or .parquet files, or a folder with a folder of images"
      " for each class"
    )
  if path.suffix.lower() == ".npy":
    raise DatasetNotFoundError(
      f"{path} is one array\n  allowed: the folder that holds it beside the"
      f" others, such as images.npy and labels.npy: {path.parent}"
    )
  return Place(path, kind)


def _kind_of_folder(path: Path) -> str:
  if any(path.glob("*.npy")):
    return "arrays"
  files = sorted(path.glob("*.npz"))
  if files and not any(one.is_dir() for one in path.iterdir()):
    raise DatasetNotFoundError(
      f"{path} is a folder of .npz files\n  allowed: one of them, such as"
      f" {files[0]}"
    )
  return "parquet" if _holds_parquet(path, levels=2) else "images"


def _holds_parquet(path: Path, levels: int) -> bool:
  """Looks into the first folders only: a set may have millions of images."""
  if any(not _is_hidden(file.name) for file in path.glob("*.parquet")):
    return True
  with os.scandir(path) as entries:
    folders = [e.path for e in entries if e.is_dir() and not _is_hidden(e.name)]
  first = sorted(folders)[:4] if levels else []
  return any(_holds_parquet(Path(folder), levels - 1) for folder in first)


def _is_hidden(name: str) -> bool:
  """Whether it is a download's cache, or what macOS keeps beside a file."""
  return name.startswith(".")


def _is_own_folder(path: Path) -> bool:
  """Whether there is a folder that TFDS did not write."""
  return path.is_dir() and not _written_by_tfds(path)


def _written_by_tfds(path: Path) -> list[Path]:
  return [*path.glob("dataset_info.json"), *path.glob("*/dataset_info.json")]


def _refuse_prepared(path: Path, written: Path) -> None:
  info = json.loads(written.read_text())
  name = info.get("name", path.name)
  places = [p.parent for p in written.parents if p.name == name]
  full = "/".join(filter(None, (name, info.get("configName"))))
  raise DatasetNotFoundError(
    f"{path} was prepared by TFDS\n  allowed: config.data.name={full}"
    f" config.data.dir={places[0] if places else path.parent}"
  )


def parquet_by_split(path: Path) -> dict[str, list[Path]]:
  """The Parquet files of each split; `train` where no name tells one.

  Raises:
    DataError: some names tell a split, and others do not.
  """
  if path.is_file():
    first, *_ = re.split(r"[^A-Za-z]", path.name)
    return {split_in(first) or "train": [path]}
  found: dict[str, list[Path]] = {}
  for file in sorted(path.rglob("*.parquet")):
    places = file.relative_to(path)
    if any(map(_is_hidden, places.parts)):
      continue
    names = [file.stem, *(parent.name for parent in places.parents)]
    split = next(filter(None, map(split_in, names)), "")
    found.setdefault(split, []).append(file)
  if strays := found.pop("", []):
    if found:
      raise DataError(
        f"{strays[0]} tells no split beside those of {', '.join(found)}\n"
        "  allowed: train, validation or test in the name of each file or of"
        " its folder; or none in all of them"
      )
    return {"train": strays}
  return found
