"""Parquet files of images and labels, as Hugging Face writes them."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetsam._lab import lab_packages
from forgetsam.data._errors import DataError
from forgetsam.data.formats._file_split import FileSplit, ImageFiles
from forgetsam.data.formats._names import parquet_by_split
from forgetsam.data.formats._parquet_split import (
  ParquetFile,
  ParquetSplit,
  naming,
)

if TYPE_CHECKING:
  import pyarrow

_LABELS = ("label", "labels", "target", "class", "fine_label")
_MOST_CLASSES = 1_000_000
_ALLOWED = (
  "a column of images, bytes or {bytes, path} as Hugging Face writes them, and"
  f" a column of classes, one of {', '.join(_LABELS)}"
)


def find_parquet(path: Path) -> ImageFiles:
  """The images of one Parquet file, or of all in a folder.

  Raises:
    DataError: a file is damaged, or has other columns.
  """
  by_split: dict[str, list[ParquetFile]] = {}
  for split, paths in parquet_by_split(path).items():
    by_split[split] = [_look_at(file) for file in paths]
  everything = [file for several in by_split.values() for file in several]
  classes = _classes(everything)
  splits: dict[str, FileSplit] = {
    split: ParquetSplit(f"Split {split!r} of {path}", several, classes)
    for split, several in by_split.items()
  }
  return ImageFiles(path, splits, classes)


def _look_at(path: Path) -> ParquetFile:
  with lab_packages(f"reading {path}"):
    import pyarrow.parquet

  with naming(path), pyarrow.parquet.ParquetFile(path) as file:
    schema = file.schema_arrow
    images = [n for n in schema.names if _is_image(schema.field(n).type)]
    labels = [n for n in _LABELS if n in schema.names]
    if len(images) != 1 or not labels:
      raise DataError(
        f"{path} has the columns {', '.join(schema.names)}\n  allowed:"
        f" {_ALLOWED}"
      )
    column = images[0]
    if pyarrow.types.is_struct(schema.field(column).type):
      column += ".bytes"
    meta = file.metadata
    groups = [meta.row_group(i) for i in range(meta.num_row_groups)]
    rows = [group.num_rows for group in groups]
    sizes = [_column_bytes(group, column) for group in groups]
    classes = file.read([labels[0]]).column(0).to_pylist()
    names = _class_names(schema, labels[0])
  size = path.stat().st_size
  return ParquetFile(path, column, classes, names, rows, sizes, size)


def _column_bytes(group: Any, column: str) -> int:
  chunks = [group.column(i) for i in range(group.num_columns)]
  return sum(
    chunk.total_uncompressed_size
    for chunk in chunks
    if chunk.path_in_schema == column
  )


def _is_image(kind: Any) -> bool:
  import pyarrow

  if pyarrow.types.is_struct(kind):
    return bool(kind.get_field_index("bytes") >= 0)
  return bool(
    pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)
  )


def _class_names(schema: "pyarrow.Schema", label: str) -> list[str] | None:
  try:
    info = json.loads((schema.metadata or {})[b"huggingface"])["info"]
    return [str(name) for name in info["features"][label]["names"]]
  except (KeyError, TypeError, ValueError):  # not Hugging Face's, or no classes
    return None


def _classes(files: list[ParquetFile]) -> list[str]:
  """The names of the classes; they must be the same in all files."""
  labels = [label for file in files for label in file.labels]
  named = bool(labels) and isinstance(labels[0], str)
  for file in files:
    if file.classes != files[0].classes:
      raise DataError(
        f"{file.path} has the classes {file.classes}\n  allowed: those of"
        f" {files[0].path}, {files[0].classes}"
      )
    for row, label in enumerate(file.labels):
      number = type(label) is int and label < _MOST_CLASSES
      if not (isinstance(label, str) if named else number):
        raise DataError(
          f"{file.path}, row {row}, has the label {label!r}\n  allowed: the"
          f" number of a class, below {_MOST_CLASSES:,}, or its name; numbers"
          " alone or names alone"
        )
  if named:
    return sorted({name for file in files for name in file.labels})
  if files[0].classes is not None:
    return files[0].classes
  return [str(i) for i in range(max(labels, default=-1) + 1)]
