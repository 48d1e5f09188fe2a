"""A split in Parquet files."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Int32, Int64

from forgetsam.data._errors import DataError
from forgetsam.data._tensorflow import tf
from forgetsam.data.files import Parse, Records, Store

if TYPE_CHECKING:
  import pyarrow

_MOST_GROUP_BYTES = 2**29


class ParquetFile(NamedTuple):
  """A file of a split, as its metadata describe it."""

  path: Path
  image: str  # the column, as it is to be read
  labels: list[Any]
  classes: list[str] | None
  groups: list[int]  # rows of each row group
  group_bytes: list[int]  # of its images
  num_bytes: int


class ParquetSplit:
  """A split whose examples are rows of Parquet files, in their order."""

  def __init__(self, name: str, files: list[ParquetFile], classes: list[str]):
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
    self._sampled: tuple[int, pyarrow.ChunkedArray] | None = None
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

  def check_stream(self) -> None:
    """See `FileSplit`: lanes hold a row group each."""
    for file in self._files:
      size = max(file.group_bytes, default=0)
      if size > _MOST_GROUP_BYTES:
        raise DataError(
          f"{file.path} has a row group with {size / 2**20:.0f} MiB of images,"
          " which are read together\n  allowed: at most"
          f" {_MOST_GROUP_BYTES / 2**20:.0f} MiB where a set is streamed; write"
          " the file again, by pyarrow.parquet.write_table(...,"
          " row_group_size=1000)"
        )

  def encoded(self, position: int) -> bytes:
    """See `FileSplit`."""
    group = int(self._group_of(np.array([position]))[0])
    if self._sampled is None or self._sampled[0] != group:
      self._sampled = group, self._column(group)
    row = position - self._starts[group]
    if image := _images(self._sampled[1].slice(row, 1))[0]:
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
    self._sampled = None
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
    import pyarrow

    group = int(self._group_of(positions[:1])[0])
    rows = pyarrow.array(positions - self._starts[group])
    return _images(self._column(group).take(rows))

  def _column(self, group: int) -> "pyarrow.ChunkedArray":
    import pyarrow.parquet

    number, within = self._groups[group]
    source = self._files[number]
    with naming(source.path), pyarrow.parquet.ParquetFile(source.path) as file:
      return file.read_row_group(within, [source.image]).column(0)


def _images(column: "pyarrow.ChunkedArray") -> list[bytes]:
  import pyarrow.compute

  if pyarrow.types.is_struct(column.type):
    column = pyarrow.compute.struct_field(column, "bytes")
  return [image or b"" for image in column.to_pylist()]


def _unpack(contents: "tf.Tensor") -> "tuple[tf.Tensor, tf.Tensor]":
  label = tf.io.decode_raw(tf.strings.substr(contents, 0, 4), tf.int32)[0]
  return tf.strings.substr(contents, 4, -1), label


@contextmanager
def naming(path: Path) -> Iterator[None]:
  """Says which file an error is about."""
  import pyarrow

  try:
    yield
  except (OSError, pyarrow.ArrowException) as error:
    raise DataError(
      f"{path} cannot be read: {error}\n  allowed: the file as it was written;"
      " copy it again"
    ) from error
