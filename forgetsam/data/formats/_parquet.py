"""Parquet files of images and labels, as Hugging Face writes them."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Int32, Int64

from forgetsam._lab import lab_packages
from forgetsam.data._errors import DataError
from forgetsam.data._tensorflow import tf
from forgetsam.data.files import Parse, Records, Store
from forgetsam.data.formats._file_split import FileSplit, ImageFiles
from forgetsam.data.formats._names import parquet_by_split

if TYPE_CHECKING:
  import pyarrow

_LABELS = ("label", "labels", "target", "class", "fine_label")
_MOST_CLASSES = 1_000_000
_ALLOWED = (
  "a column of images, bytes or {bytes, path} as Hugging Face writes them, and"
  f" a column of classes, one of {', '.join(_LABELS)}"
)


class _File(NamedTuple):
  path: Path
  image: str  # the column, as it is to be read
  labels: list[Any]
  classes: list[str] | None
  groups: list[int]  # rows of each row group
  num_bytes: int


def find_parquet(path: Path) -> ImageFiles:
  """The images of one Parquet file, or of all in a folder.

  Raises:
    DataError: a file is damaged, or has other columns.
  """
  by_split: dict[str, list[_File]] = {}
  for split, paths in parquet_by_split(path).items():
    by_split[split] = [_look_at(file) for file in paths]
  everything = [file for several in by_split.values() for file in several]
  classes = _classes(everything)
  splits: dict[str, FileSplit] = {
    split: ParquetSplit(f"Split {split!r} of {path}", several, classes)
    for split, several in by_split.items()
  }
  return ImageFiles(path, splits, classes)


def _look_at(path: Path) -> _File:
  with lab_packages(f"reading {path}"):
    import pyarrow.parquet

  with _named(path), pyarrow.parquet.ParquetFile(path) as file:
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
    groups = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
    classes = file.read([labels[0]]).column(0).to_pylist()
    names = _class_names(schema, labels[0])
  return _File(path, column, classes, names, groups, path.stat().st_size)


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


def _classes(files: list[_File]) -> list[str]:
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


class ParquetSplit:
  """A split whose examples are rows of Parquet files, in their order."""

  def __init__(self, name: str, files: list[_File], classes: list[str]):
    self.name, self._files = name, files
    numbers = {name: i for i, name in enumerate(classes)}
    labels = [label for file in files for label in file.labels]
    self.labels: Int32[np.ndarray, " n"] = np.array(
      [numbers[x] if isinstance(x, str) else x for x in labels], np.int32
    )
    groups = [
      (i, j, rows)
      for i, f in enumerate(files)
      for j, rows in enumerate(f.groups)
    ]
    self._groups = [(i, j) for i, j, _ in groups]
    self._starts = np.cumsum([0] + [rows for *_, rows in groups])

  @property
  def num_bytes(self) -> int:
    """See `FileSplit`."""
    return sum(file.num_bytes for file in self._files)

  def where(self, position: int) -> str:
    """See `FileSplit`."""
    group = self._group_of(np.array([position]))[0]
    file = self._groups[group][0]
    first = next(
      s
      for (i, _), s in zip(self._groups, self._starts, strict=False)
      if i == file
    )
    return f"{self._files[file].path}, row {position - first}"

  def encoded(self, position: int) -> bytes:
    """See `FileSplit`."""
    if image := self._read(np.array([position]))[0]:
      return image
    raise ValueError("it has no bytes; Hugging Face may write paths alone")

  def digest(self) -> str:
    """See `FileSplit`: names, sizes and labels."""
    names = [(file.path.name, file.num_bytes) for file in self._files]
    digest = hashlib.sha256(repr(names).encode())
    digest.update(self.labels.tobytes())
    return digest.hexdigest()

  def shuffled(
    self, positions: Int64[np.ndarray, " m"]
  ) -> Int64[np.ndarray, " m"]:
    """See `FileSplit`: rows are read in groups."""
    return positions

  def open(
    self, positions: Int64[np.ndarray, " m"]
  ) -> tuple[Records, Store, Parse]:
    """See `FileSplit`."""
    group = self._group_of(positions)
    first = np.flatnonzero(np.diff(group, prepend=-1))
    take = np.diff(first, append=len(positions))
    files = [self._files[self._groups[g][0]].path for g in group[first]]
    records = Records(
      path=np.array([str(path) for path in files]),
      skip=positions[first] - self._starts[group[first]],
      take=take,
      first=first,
      origin=first,
    )

    def contents(origin: Any, take: Any) -> Any:
      rows = positions[int(origin) : int(origin) + int(take)]
      labels = self.labels[rows].astype("<i4")
      images = self._read(rows)
      packed = [x.tobytes() + i for x, i in zip(labels, images, strict=True)]
      return np.array(packed, object)

    def read(run: Records) -> "tf.data.Dataset":
      rows = tf.numpy_function(contents, [run.origin, run.take], tf.string)
      return tf.data.Dataset.from_tensor_slices(tf.ensure_shape(rows, [None]))

    return records, Store(read, positions, self.where), _unpack

  def _group_of(
    self, positions: Int64[np.ndarray, " m"]
  ) -> Int64[np.ndarray, " m"]:
    return np.searchsorted(self._starts, positions, side="right") - 1

  def _read(self, positions: Int64[np.ndarray, " m"]) -> list[bytes]:
    """Image files of rows of one group."""
    import pyarrow.compute
    import pyarrow.parquet

    group = int(self._group_of(positions[:1])[0])
    number, within = self._groups[group]
    source = self._files[number]
    with _named(source.path), pyarrow.parquet.ParquetFile(source.path) as file:
      column = file.read_row_group(within, [source.image]).column(0)
    column = column.take(pyarrow.array(positions - self._starts[group]))
    if pyarrow.types.is_struct(column.type):
      column = pyarrow.compute.struct_field(column, "bytes")
    return [image or b"" for image in column.to_pylist()]


def _unpack(contents: "tf.Tensor") -> "tuple[tf.Tensor, tf.Tensor]":
  label = tf.io.decode_raw(tf.strings.substr(contents, 0, 4), tf.int32)[0]
  return tf.strings.substr(contents, 4, -1), label


@contextmanager
def _named(path: Path) -> Iterator[None]:
  """Says which file an error is about."""
  import pyarrow

  try:
    yield
  except (OSError, pyarrow.ArrowException) as error:
    raise DataError(
      f"{path} cannot be read: {error}\n  allowed: the file as it was written;"
      " copy it again"
    ) from error
