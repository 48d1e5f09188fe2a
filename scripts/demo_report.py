"""The curves and the tables of `scripts/demo.py`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from forgetsam.experiment.figures import add_grid, new_figure
from forgetsam.experiment.sweep import mean_over_runs, paired_difference
from forgetsam.experiment.tables import (
  csv_text,
  interval_text,
  markdown_table,
  mean_text,
)


class Point(NamedTuple):
  """How a network does after an epoch: fractions of examples, and nats."""

  epoch: int
  validation_accuracy: float
  test_accuracy: float
  test_loss: float
  memorised: float  # of the wrong training labels


Run = list[Point]
Curves = dict[str, list[Run]]  # by method, then by seed

BASELINE = "plain"
# Colours that colour-blind readers tell apart (Okabe and Ito), and dashes.
_LINES = {
  "plain, no decay": ("#999999", ":"),
  "plain": ("#000000", "--"),
  "sam": ("#0072b2", "-."),
  "obf": ("#d55e00", "-"),
}
# Title, limits from below and above, and how a value is written.
_PANELS = {
  "test_accuracy": ("test accuracy", 0.6, 1.0, "{:.1%}"),
  "test_loss": ("test loss (nats)", 0.0, 2.5, "{:.2f}"),
  "memorised": ("wrong training labels memorised", 0.0, 1.02, "{:.0%}"),
}
_RESULTS: dict[str, Callable[[Run], float]] = {
  "test accuracy": lambda run: run[-1].test_accuracy,
  # What plain training has at hand against wrong labels.
  "stopped early": lambda run: best_on_validation(run).test_accuracy,
  "test loss": lambda run: run[-1].test_loss,
  "memorised": lambda run: run[-1].memorised,
}


def best_on_validation(run: Run) -> Point:
  """The first of the epochs with the highest validation accuracy."""
  return max(run, key=lambda point: point.validation_accuracy)


def write_curves(path: Path, curves: Curves, seeds: Sequence[int]) -> None:
  """Writes every point as a row of CSV."""
  rows = (
    [name, seed, epoch, *(f"{value:.4f}" for value in values)]
    for name, runs in curves.items()
    for seed, run in zip(seeds, runs, strict=True)
    for epoch, *values in run
  )
  path.write_text(csv_text(["method", "seed", *Point._fields], rows))


def draw(path: Path, curves: Curves) -> None:
  """Draws the means over seeds, with each seed where there are more, as PNG."""
  from matplotlib.ticker import PercentFormatter

  figure = new_figure(11.0, 4.0, dpi=110)
  axes = figure.subplots(1, len(_PANELS))
  for axis, (field, panel) in zip(axes, _PANELS.items(), strict=True):
    title, low, high, form = panel
    for name, runs in curves.items():
      color, dashes = _LINES[name]
      epochs = [point.epoch for point in runs[0]]
      values = np.array([[getattr(p, field) for p in run] for run in runs])
      if len(runs) > 1:
        axis.plot(epochs, values.T, color=color, alpha=0.2, linewidth=0.6)
      mean = values.mean(0)
      label = f"{name}: {form.format(mean[-1])}"
      axis.plot(epochs, mean, dashes, color=color, linewidth=2, label=label)
    axis.set(title=title, xlabel="epoch")
    axis.set(xlim=(0, epochs[-1]), ylim=(low, high))
    if "%" in form:
      axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    add_grid(axis)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(title="at the end", fontsize=9, edgecolor="none")
  figure.savefig(path)


def results(curves: Curves) -> str:
  """The results as Markdown.

  With more than one seed: means and standard errors, then paired differences
  to plain training with 95 % intervals.
  """
  values = {
    name: [[result(run) for run in runs] for result in _RESULTS.values()]
    for name, runs in curves.items()
  }
  one_seed = len(curves[BASELINE]) == 1
  digits = 3 if one_seed else 4
  means = [
    [name, *(mean_text(*mean_over_runs(c), digits) for c in columns)]
    for name, columns in values.items()
  ]
  text = markdown_table(["method", *_RESULTS], means, aligned=True)
  if one_seed:
    return text
  differences = [
    [name, *map(_difference, columns, values[BASELINE])]
    for name, columns in values.items()
    if name != BASELINE
  ]
  header = [f"minus {BASELINE}", *_RESULTS]
  return f"{text}\n{markdown_table(header, differences, aligned=True)}"


def _difference(values: list[float], baseline: list[float]) -> str:
  return interval_text(*paired_difference(values, baseline))
