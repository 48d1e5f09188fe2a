"""Numbers and tables as Markdown."""

from collections.abc import Iterable, Sequence

import numpy as np

from forgetsam.studies.correlation._bootstrap import Interval


def number(interval: Interval) -> str:
  """A value with what is known of its interval."""
  if np.isnan(interval.value):
    return "n/a"
  text = f"{interval.value:+.2f}"
  if np.isnan(interval.low):
    return text
  return f"{text} [{interval.low:+.2f}, {interval.high:+.2f}]"


def p_value(p: float) -> str:
  """An adjusted p-value, to three digits."""
  if np.isnan(p):
    return "n/a"
  return "< .001" if p < 0.001 else f"{p:.3f}"


def table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  """A table with a line for the names."""
  # A bar in a label would end its cell.
  lines = [list(names), ["---"] * len(names), *map(list, rows)]
  cells = ([c.replace("|", "\\|") for c in line] for line in lines)
  return "".join("| " + " | ".join(line) + " |\n" for line in cells)
