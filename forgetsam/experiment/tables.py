"""Results as text: Markdown and CSV tables, and the numbers in them."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any


def markdown_table(
  header: Sequence[str],
  rows: Iterable[Sequence[str]],
  *,
  aligned: bool = False,
) -> str:
  """A Markdown table: the first column to the left, the rest to the right.

  Args:
    header: the columns' names.
    rows: their cells.
    aligned: pads the cells, for a terminal.

  Returns:
    Lines, each with its end.

  Example:
    >>> print(markdown_table(["set", "loss"], [["digits", "0.5"]]), end="")
    | set | loss |
    | --- | ---: |
    | digits | 0.5 |
  """
  # A bar in a cell would end it.
  lines = [[c.replace("|", "\\|") for c in row] for row in (header, *rows)]
  widths = [0] * len(header)
  if aligned:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  first, *rest = widths
  rule = ["-" * max(first, 3), *("-" * max(w - 1, 3) + ":" for w in rest)]

  def padded(line: Sequence[str]) -> list[str]:
    numbers = zip(line[1:], rest, strict=True)
    return [line[0].ljust(first), *(cell.rjust(w) for cell, w in numbers)]

  body = [padded(lines[0]), rule, *map(padded, lines[1:])]
  return "".join(f"| {' | '.join(line)} |\n" for line in body)


def mean_text(mean: float, error: float | None, digits: int = 4) -> str:
  """`0.8132 ± 0.0013`; the mean alone where there is no error.

  Example:
    >>> mean_text(0.5, None), mean_text(0.5, 0.125, digits=2)
    ('0.5000', '0.50 ± 0.12')
  """
  text = f"{mean:.{digits}f}"
  return text if error is None else f"{text} ± {error:.{digits}f}"


def interval_text(
  value: float, low: float | None, high: float | None, digits: int = 4
) -> str:
  """`+0.0120 [+0.0040, +0.0200]`; the value alone where there is no interval.

  Example:
    >>> interval_text(0.5, None, None), interval_text(0.5, -1.0, 2.0, digits=1)
    ('+0.5000', '+0.5 [-1.0, +2.0]')
  """
  text = f"{value:+.{digits}f}"
  if low is None:
    return text
  return f"{text} [{low:+.{digits}f}, {high:+.{digits}f}]"


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
  """A CSV table; None is an empty cell."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator="\n")
  writer.writerow(header)
  writer.writerows(rows)
  return text.getvalue()
