"""Arrays whose rows are read as they are needed, such as mapped files."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Int64

_BLOCK_BYTES = 2**24


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
  """An array that is not in memory: `rows[i:j]` and `rows[positions]` read it.

  Attributes:
    shape: of the whole array.
    dtype: of what is read.
    read: gives the rows of a slice, or at positions.
  """

  shape: tuple[int, ...]
  dtype: np.dtype[Any]
  read: Callable[[Any], np.ndarray]

  @property
  def ndim(self) -> int:
    """Number of axes."""
    return len(self.shape)

  def __len__(self) -> int:
    return self.shape[0]

  def __getitem__(self, rows: Any) -> np.ndarray:
    return self.read(rows)


Column = np.ndarray | Rows


def choose_rows(column: Column, positions: Int64[np.ndarray, " m"]) -> Column:
  """The rows at `positions`, in that order; of `Rows`, read when needed."""
  if not isinstance(column, Rows):
    return column[positions]
  shape = (len(positions), *column.shape[1:])
  return Rows(shape, column.dtype, lambda rows: column[positions[rows]])


def row_wise(
  function: Callable[..., np.ndarray], dtype: Any, *columns: Column
) -> Column:
  """A function of columns' rows; of `Rows` (the first), when they are read."""
  shape, numbers = columns[0].shape, np.dtype(dtype)
  found = Rows(shape, numbers, lambda at: function(*(c[at] for c in columns)))
  return found if isinstance(columns[0], Rows) else found[:]


def blocks(column: Column) -> Iterator[tuple[int, np.ndarray]]:
  """A column's rows, some at a time, with the first one's position."""
  row_bytes = column.dtype.itemsize * math.prod(column.shape[1:])
  count = max(1, _BLOCK_BYTES // max(1, row_bytes))
  for start in range(0, len(column), count):
    yield start, column[start : start + count]
