"""The part of a measuring job's results that it prints and draws."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from forgetsam.experiment.figures import add_grid, new_figure
from forgetsam.experiment.run import write_json
from forgetsam.experiment.tables import markdown_table

if TYPE_CHECKING:
  from matplotlib.figure import Figure

Results = Mapping[str, float | int | None]

# Colours that colour-blind readers tell apart (Okabe and Ito).
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#000000", "#cc79a7", "#e69f00")
_DASHES = ("-", "--", ":", "-.")


class Panel(NamedTuple):
  """A table that is also drawn.

  Attributes:
    title: what is measured, and its unit.
    columns: what they are of; empty for one column without a name.
    rows: a label, and the key of each column's value in a checkpoint's results.
  """

  title: str
  columns: tuple[str, ...]
  rows: Mapping[str, tuple[str, ...]]


def present(panels: Sequence[Panel], results: Results) -> list[Panel]:
  """The panels and rows of which something was measured."""
  measured = {k.partition("/")[2] for k in results}
  kept = [
    panel._replace(
      rows={k: v for k, v in panel.rows.items() if measured & set(v)}
    )
    for panel in panels
  ]
  return [panel for panel in kept if panel.rows]


def report(panels: Sequence[Panel], results: Results, path: Path) -> None:
  """Prints the last checkpoint's tables, then writes and draws everything.

  Args:
    panels: what to show of what was measured.
    results: what the job found.
    path: its file; the picture lies beside it.
  """
  panels = present(panels, results)
  *before, last = dict.fromkeys(key.partition("/")[0] for key in results)
  print(f"\n{last}, step {results[f'{last}/step']}\n")
  print_panels(panels, results, last)
  write_json(path, results)
  more = f", those of {len(before)} more checkpoints too," if before else ""
  print(f"All numbers{more} are in {path}")
  if panels:
    draw_panels(panels, results).savefig(path.with_suffix(".png"))
    print(f"The picture is {path.with_suffix('.png')}")


def print_panels(
  panels: Sequence[Panel], results: Results, checkpoint: str
) -> None:
  """Prints a table for each panel, of one checkpoint."""
  for panel in panels:
    cells = [
      [label, *(_cell(results, f"{checkpoint}/{key}") for key in keys)]
      for label, keys in panel.rows.items()
    ]
    header = [panel.title, *(panel.columns or [""])]
    print(markdown_table(header, cells, aligned=True))


def _value(results: Results, key: str) -> tuple[float, float | None]:
  """A value and its error; nan where it is not finite."""
  value = results.get(key)
  error = results.get(f"{key}/standard_error", results.get(f"{key}/error"))
  return np.nan if value is None else value, error


def _cell(results: Results, key: str) -> str:
  if key not in results:
    return ""
  value, error = _value(results, key)
  if not np.isfinite(value):
    return "not finite"
  text = f"{value:.4g}"
  return text if error is None else f"{text} ± {error:.2g}"


def draw_panels(panels: Sequence[Panel], results: Results) -> "Figure":
  """Draws values with their errors: of one checkpoint, or along the steps."""
  checkpoints = list(dict.fromkeys(key.partition("/")[0] for key in results))
  several = len(checkpoints) > 1
  heights = [3.2 if several else 0.8 + 0.33 * len(p.rows) for p in panels]
  figure = new_figure(8.5, sum(heights) + 0.3)
  axes = figure.subplots(len(panels), 1, height_ratios=heights, squeeze=False)
  for axis, panel in zip(axes[:, 0], panels, strict=True):
    draw = _draw_along_steps if several else _draw_dots
    draw(axis, panel, results, checkpoints)
    axis.set_title(panel.title, fontsize=10, loc="left")
    axis.spines[["top", "right"]].set_visible(False)
    add_grid(axis)
    if several or len(panel.columns) > 1:
      place = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
      axis.legend(frameon=False, fontsize=8, **place)
  return figure


def _draw_dots(
  axis: Any, panel: Panel, results: Results, checkpoints: Sequence[str]
) -> None:
  """A row for each label, from above."""
  count = max(len(panel.columns), 1)
  places = np.arange(len(panel.rows))
  for i in range(count):
    keys = [f"{checkpoints[0]}/{keys[i]}" for keys in panel.rows.values()]
    found = [_value(results, key) for key in keys]
    axis.errorbar(
      [value for value, _ in found],
      places + 0.16 * (i - (count - 1) / 2),
      xerr=[error or 0.0 for _, error in found],
      fmt="o",
      markersize=4,
      color=_COLORS[i],
      label=panel.columns[i] if panel.columns else None,
    )
  axis.set_yticks(places, panel.rows, fontsize=9)
  axis.set_ylim(len(panel.rows) - 0.5, -0.5)
  axis.axvline(0, color="#999999", linewidth=0.8)


def _draw_along_steps(
  axis: Any, panel: Panel, results: Results, checkpoints: Sequence[str]
) -> None:
  """A colour for each row, and dashes for each column."""
  steps = [results[f"{name}/step"] for name in checkpoints]
  columns = panel.columns or ("",)
  for color, (label, keys) in zip(
    _COLORS * len(panel.rows), panel.rows.items(), strict=False
  ):
    for dashes, column, key in zip(_DASHES, columns, keys, strict=False):
      found = [_value(results, f"{name}/{key}") for name in checkpoints]
      axis.errorbar(
        steps,
        [value for value, _ in found],
        yerr=[error or 0.0 for _, error in found],
        color=color,
        linestyle=dashes,
        linewidth=1.2,
        label=", ".join(filter(None, [label, column])),
      )
  axis.set_xlabel("step")
