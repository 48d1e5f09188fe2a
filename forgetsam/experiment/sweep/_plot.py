"""A sweep's picture: every run, and the variants' means with their errors."""

from pathlib import Path
from typing import Any

from forgetsam.experiment.figures import add_grid, add_legend, new_figure
from forgetsam.experiment.sweep._comparison import Row

# One dark and one light tone: the picture reads the same in grey.
_MEAN, _RUN = "#0b4f8a", "#b8b8b8"


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
    finished = [value for value in row.values if value is not None]
    axis.plot(
      finished,
      [y] * len(finished),
      marker="o",
      linestyle="none",
      markersize=4,
      color=_RUN,
      label="one run" if y == 0 else None,
    )
    if row.mean is not None:
      axis.errorbar(
        row.mean.mean,
        y,
        xerr=row.mean.standard_error,
        marker="D",
        markersize=5,
        capsize=4,
        linewidth=1.8,
        color=_MEAN,
        label="mean ± standard error" if y == 0 else None,
      )
    if row.diverged:
      axis.annotate(
        f"{row.diverged} of {len(row.values)} diverged",
        (0.98, y),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="center",
        fontsize=8,
      )
  if rows[0].variant == "plain" and rows[0].mean is not None:
    axis.axvline(
      rows[0].mean.mean,
      color="black",
      linestyle=":",
      linewidth=1,
      label="mean of plain",
    )
  axis.set_yticks(range(len(rows)), [row.variant for row in rows])
  axis.set_xlabel(label)
  add_grid(axis, "x")
