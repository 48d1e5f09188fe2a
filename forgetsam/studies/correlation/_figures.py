"""The study's pictures; they read the same in grey and need matplotlib."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from forgetsam.experiment.figures import add_grid, add_legend, new_figure
from forgetsam.studies.correlation._associations import Interval
from forgetsam.studies.correlation._names import label
from forgetsam.studies.correlation._networks import Networks, choose

if TYPE_CHECKING:
  from matplotlib.figure import Figure

# Shapes tell methods apart; tones only help.
_MARKS = {
  "plain": ("X", "#000000"),
  "sam": ("o", "#0b4f8a"),
  "obf": ("^", "#c8701a"),
  "gsam": ("s", "#5d9bd1"),
  "asam": ("D", "#7a7a7a"),
  "random": ("P", "#b8b8b8"),
}


def plot_networks(
  networks: Networks, measures: Sequence[str], target: str
) -> "Figure":
  """The target against each measure, a mark for each network.

  Args:
    networks: rows to show.
    measures: a panel each; one standard error is drawn where the table has it.
    target: the y axis.

  Returns:
    The figure; save it with `figure.savefig(path)`. Networks that lie far from
    all others are outside of the axes, and counted in a corner.
  """
  width = min(3, len(measures))
  height = -(-len(measures) // width)
  figure = new_figure(3.3 * width, 2.7 * height + 0.5)
  panels = figure.subplots(height, width, sharey=True, squeeze=False)
  for panel, measure in zip(panels.flat, measures, strict=False):
    for method, (marker, color) in _MARKS.items():
      rows = choose(networks, networks["method"] == method)
      if not len(rows["method"]):
        continue
      look = {"fmt": marker, "color": color, "ms": 4, "mew": 0, "alpha": 0.75}
      panel.errorbar(
        rows[measure],
        rows[target],
        xerr=rows.get(f"{measure}_se"),
        elinewidth=0.6,
        label=method,
        **look,
      )
    _fit_axes(panel, networks[measure], networks[target])
    panel.set_xlabel(label(measure), fontsize=9)
    add_grid(panel)
  for panel in panels.flat[len(measures) :]:
    panel.set_visible(False)
  for panel in panels[:, 0]:
    panel.set_ylabel(label(target), fontsize=9)
  add_legend(figure, panels[0, 0], ncols=6)
  return figure


def plot_associations(
  measures: Sequence[str],
  series: Mapping[str, Sequence[Interval]],
  axis_label: str,
) -> "Figure":
  """Rank correlations with their 95 % intervals, a line for each measure.

  Args:
    measures: the lines, from the top.
    series: name -> an interval for each measure.
    axis_label: of the x axis.

  Returns:
    The figure.
  """
  looks = [("o", "#0b4f8a"), ("s", "#c8701a"), ("^", "#7a7a7a")]
  figure = new_figure(7.2, 0.9 + 0.3 * len(measures))
  axis = figure.subplots()
  offsets = np.linspace(-0.22, 0.22, len(series))
  for (name, intervals), (marker, color), offset in zip(
    series.items(), looks, offsets, strict=False
  ):
    places = np.arange(len(measures)) + offset
    look = {"marker": marker, "color": color, "linestyle": "none"}
    _draw_intervals(axis, places, intervals, "x", label=name, **look)
  axis.axvline(0, color="black", linewidth=0.8)
  axis.set_yticks(range(len(measures)), [label(m) for m in measures])
  axis.set_ylim(len(measures) - 0.5, -0.5)
  axis.set_xlim(-1, 1)
  axis.set_xlabel(axis_label)
  add_grid(axis, "x")
  add_legend(figure, axis, ncols=3)
  return figure


def plot_along_training(
  epochs: Sequence[int],
  series: Mapping[str, Sequence[Interval]],
  axis_label: str,
) -> "Figure":
  """Correlations with the end of training of what was measured before.

  Args:
    epochs: when it was measured.
    series: name of a measure -> an interval for each epoch.
    axis_label: of the y axis.

  Returns:
    The figure.
  """
  figure = new_figure(6.4, 3.6)
  axis = figure.subplots()
  colors = ("#0b4f8a", "#c8701a", "#5d9bd1", "#7a7a7a")
  looks = zip("os^D", ("-", "--", "-.", ":"), colors, strict=True)
  for i, ((name, intervals), look) in enumerate(
    zip(series.items(), looks, strict=False)
  ):
    places = np.array(epochs) * 1.03 ** (i - 1.5)
    marker, style, color = look
    _draw_intervals(
      axis, places, intervals, "y", label=label(name),
      marker=marker, linestyle=style, color=color,
    )  # fmt: skip
  axis.axhline(0, color="black", linewidth=0.8)
  axis.set_xscale("log")
  axis.set_xticks(epochs, [str(epoch) for epoch in epochs])
  axis.minorticks_off()
  axis.set_ylim(-1, 1)
  axis.set_xlabel("epoch at which forgetting is measured")
  axis.set_ylabel(axis_label)
  add_grid(axis)
  add_legend(figure, axis, ncols=2)
  return figure


def plot_forgetting_and_sharpness(
  forgetting: Sequence[str],
  sharpness: Sequence[str],
  tables: Mapping[str, Sequence[Interval]],
) -> "Figure":
  """Tables of rank correlations, dark where they are strong.

  Args:
    forgetting: the lines.
    sharpness: the columns.
    tables: title -> intervals, line after line; those that cover zero are put
      in brackets.

  Returns:
    The figure.
  """
  figure = new_figure(2.6 + 3.3 * len(tables), 1.9 + 0.3 * len(forgetting))
  panels = figure.subplots(1, len(tables), sharey=True, squeeze=False)[0]
  shape = len(forgetting), len(sharpness)
  image: Any = None
  for panel, (title, intervals) in zip(panels, tables.items(), strict=True):
    values = np.array([t.value for t in intervals]).reshape(shape)
    # Strength as tone and the sign in the number: it reads in grey.
    image = panel.imshow(
      np.abs(values), cmap="Greys", vmin=0, vmax=1, aspect="auto"
    )
    for index, interval in enumerate(intervals):
      i, j = divmod(index, len(sharpness))
      text = f"{interval.value:+.2f}".replace("0.", ".")
      if interval.low <= 0 <= interval.high:
        text = f"({text})"
      color = "white" if abs(interval.value) > 0.55 else "black"
      panel.text(j, i, text, ha="center", va="center", fontsize=7, color=color)
    panel.set_title(title, fontsize=9)
    names = [label(s) for s in sharpness]
    look = {"rotation": 40, "ha": "right", "fontsize": 7}
    panel.set_xticks(range(len(names)), names, **look)
    names = [label(f) for f in forgetting]
    panel.set_yticks(range(len(names)), names, fontsize=8)
  figure.colorbar(image, ax=list(panels), label="|Kendall's τ|", shrink=0.8)
  return figure


def save_figures(folder: Path, figures: "Mapping[str, Figure]") -> None:
  """Writes each figure as `NAME.png`, in few colours, for a small file."""
  from PIL import Image  # matplotlib needs it, too

  for name, figure in figures.items():
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    image = Image.open(buffer).convert("RGB").quantize(96)
    image.save(folder / f"{name}.png", optimize=True)


def _fit_axes(axis: Any, x: np.ndarray, y: np.ndarray) -> None:
  """Leaves out what lies five interquartile ranges beyond the quartiles."""
  outside = np.zeros(len(x), bool)
  for values, set_limits in ((x, axis.set_xlim), (y, axis.set_ylim)):
    low, high = np.quantile(values, [0.25, 0.75])
    reach = 5 * (high - low)
    inside = (values >= low - reach) & (values <= high + reach)
    outside |= ~inside
    margin = 0.08 * np.ptp(values[inside])
    if not inside.all() and margin > 0:
      set_limits(values[inside].min() - margin, values[inside].max() + margin)
  if outside.any():
    text, corner = f"{outside.sum()} outside", (0.03, 0.03)
    axis.annotate(text, corner, xycoords="axes fraction", fontsize=8)


def _draw_intervals(
  axis: Any,
  places: np.ndarray,
  intervals: Sequence[Interval],
  along: Literal["x", "y"],
  **look: Any,
) -> None:
  values, low, high, _ = np.array(intervals).T
  x, y = (values, places) if along == "x" else (places, values)
  look |= {f"{along}err": np.abs([low - values, high - values])}
  axis.errorbar(x, y, capsize=2, linewidth=1.2, markersize=5, **look)
