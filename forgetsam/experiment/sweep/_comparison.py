"""Variants side by side: paired differences over seeds, tables, a picture."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forgetsam.experiment.figures import add_grid, add_legend, new_figure
from forgetsam.experiment.sweep._records import Record
from forgetsam.experiment.sweep._statistics import (
  Difference,
  Mean,
  mean_over_runs,
  paired_difference,
)
from forgetsam.experiment.tables import (
  csv_text,
  interval_text,
  markdown_table,
  mean_text,
)

_BASELINES = ("plain", "sam")
# One dark and one light tone: the picture reads the same in grey.
_MEAN, _RUN = "#0b4f8a", "#b8b8b8"
NOTE = (
  "Means over runs with their standard errors; differences are paired over "
  "seeds, with 95 % intervals from Student's t, each for itself: with many "
  "comparisons some intervals miss zero by chance. A variant with a diverged "
  "run has no mean."
)


@dataclasses.dataclass(frozen=True)
class Row:
  """One variant's results on one metric.

  Attributes:
    variant: its name.
    values: the metric of each run, in the order of seeds; None where it
      diverged.
    mean: over all runs; None where one diverged, for a mean over the others
      would flatter the variant.
    against: the paired difference to each baseline; None to itself, and where
      a run of either diverged.
  """

  variant: str
  values: tuple[float | None, ...]
  mean: Mean | None
  against: dict[str, Difference | None]

  @property
  def diverged(self) -> int:
    """How many runs diverged."""
    return self.values.count(None)


def compare(records: Mapping[str, Sequence[Record]], metric: str) -> list[Row]:
  """Compares variants that ran with the same seeds.

  Args:
    records: each variant's records, in the same order of seeds.
    metric: such as "test/accuracy".

  Returns:
    A row for each variant, in the order given; the baselines are those of
    "plain" and "sam" that are among them.
  """
  values = {
    variant: tuple(record.value(metric) for record in several)
    for variant, several in records.items()
  }
  baselines = [name for name in _BASELINES if name in values]
  rows = []
  for variant, mine in values.items():
    against = {
      name: None if name == variant else _difference(mine, values[name])
      for name in baselines
    }
    rows.append(Row(variant, mine, mean_of(mine), against))
  return rows


def mean_of(values: Sequence[float | None]) -> Mean | None:
  """The mean over all runs, or None where one diverged."""
  finished = _finished(values)
  return mean_over_runs(finished) if len(finished) == len(values) else None


def _difference(
  values: Sequence[float | None], baseline: Sequence[float | None]
) -> Difference | None:
  mine, theirs = _finished(values), _finished(baseline)
  if min(len(mine), len(theirs)) < len(values):
    return None
  return paired_difference(mine, theirs)


def _finished(values: Sequence[float | None]) -> list[float]:
  return [value for value in values if value is not None]


def comparison_markdown(title: str, rows: Sequence[Row]) -> str:
  """One metric's table."""
  header = ["variant", title, *(f"minus {b}" for b in rows[0].against), "runs"]
  lines = []
  for row in rows:
    differences = (
      "" if name == row.variant else _show_difference(difference)
      for name, difference in row.against.items()
    )
    runs = show_runs(len(row.values), row.diverged)
    lines.append([row.variant, show_mean(row.mean), *differences, runs])
  return markdown_table(header, lines)


def comparison_csv(tables: Mapping[str, Sequence[Row]]) -> str:
  """All metrics in one table, a row for each metric and variant."""
  (first, *_) = tables.values()
  header = ["metric", "variant", "runs", "diverged", "mean", "standard_error"]
  for b in first[0].against:
    header += [f"minus_{b}", f"minus_{b}_low", f"minus_{b}_high"]
  lines = []
  for metric, rows in tables.items():
    for row in rows:
      line = [metric, row.variant, len(row.values), row.diverged]
      line += row.mean or (None, None)
      for difference in row.against.values():
        line += difference or (None, None, None)
      lines.append(line)
  return csv_text(header, lines)


def show_mean(mean: Mean | None) -> str:
  """`0.8132 ± 0.0013`, or `diverged`."""
  return "diverged" if mean is None else mean_text(*mean)


def _show_difference(difference: Difference | None) -> str:
  return "diverged" if difference is None else interval_text(*difference)


def show_runs(count: int, diverged: int) -> str:
  """`5`, or `5, of which 2 diverged`."""
  return f"{count}, of which {diverged} diverged" if diverged else str(count)


def draw_comparison(path: Path, tables: dict[str, list[Row]]) -> None:
  """Writes a PNG with a panel for each metric, by its axis label."""
  count = len(next(iter(tables.values())))
  figure = new_figure(4.6 * len(tables), 1.3 + 0.42 * count)
  panels = figure.subplots(1, len(tables), sharey=True, squeeze=False)[0]
  for axis, (label, rows) in zip(panels, tables.items(), strict=True):
    _draw_panel(axis, label, rows)
  panels[0].set_ylabel("variant")
  # Rows from the top, as in the table; the axis is shared.
  panels[0].set_ylim(count - 0.5, -0.5)
  add_legend(figure, panels[0], ncols=3)
  figure.savefig(path)


def _draw_panel(axis: Any, label: str, rows: list[Row]) -> None:
  for y, row in enumerate(rows):
    finished = _finished(row.values)
    at = [y] * len(finished)
    axis.plot(finished, at, "o", ms=4, color=_RUN, label="one run")
    if row.mean is not None:
      look = {"fmt": "D", "ms": 5, "capsize": 4, "lw": 1.8, "color": _MEAN}
      mean, error = row.mean
      axis.errorbar(mean, y, None, error, label="mean ± standard error", **look)
    if row.diverged:
      text = f"{row.diverged} of {len(row.values)} diverged"
      place = {"xycoords": ("axes fraction", "data"), "ha": "right"}
      axis.annotate(text, (0.98, y), va="center", fontsize=8, **place)
  if rows[0].variant == "plain" and rows[0].mean is not None:
    look = {"color": "black", "linestyle": ":", "linewidth": 1}
    axis.axvline(rows[0].mean.mean, label="mean of plain", **look)
  axis.set_yticks(range(len(rows)), [row.variant for row in rows])
  axis.set_xlabel(label)
  add_grid(axis, "x")
