"""Results as Markdown and as CSV tables."""

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


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
  """A CSV table; None is an empty cell."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator="\n")
  writer.writerow(header)
  writer.writerows(rows)
  return text.getvalue()
