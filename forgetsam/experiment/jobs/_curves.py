"""Draws learning curves of any number of groups of runs."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.stats

from forgetsam.experiment.figures import add_grid, new_figure
from forgetsam.experiment.jobs._runs import Run
from forgetsam.experiment.run import own_metrics

if TYPE_CHECKING:
  from matplotlib.figure import Figure

Groups = Mapping[str, Sequence[Run]]

# Colours that colour-blind readers tell apart (Okabe and Ito).
_COLORS = (
  *("#000000", "#0072b2", "#d55e00", "#009e73"),
  *("#cc79a7", "#56b4e9", "#e69f00", "#7f5f00"),
)
MOST = len(_COLORS)
_OTHERS = "#c4c4c4"
_SPLITS = ("train", "validation", "validation/ema", "test", "test/ema")


class _Line(NamedTuple):
  """A group's values of one metric: the mean over its runs, and its error."""

  steps: list[int]
  mean: np.ndarray
  error: np.ndarray | None


def main_metrics(logged: Iterable[str]) -> list[str]:
  """Losses, and accuracy or the task's own metrics, split by split.

  Example:
    >>> main_metrics(["validation/ema/loss", "train/loss", "train/grad_norm"])
    ['train/loss', 'validation/ema/loss']
  """
  known, chosen = set(logged), list[str]()
  for split in _SPLITS:
    names = [n.rpartition("/")[2] for n in logged if n.startswith(f"{split}/")]
    shown = ["loss", "perturbed_loss", "accuracy", *own_metrics(names)]
    chosen += [f"{split}/{name}" for name in shown]
  return [name for name in dict.fromkeys(chosen) if name in known]


def metrics_to_draw(groups: Groups) -> list[str]:
  """The main metrics that some run logged more than once, or else at all."""
  times: dict[str, int] = {}
  for run in [run for group in groups.values() for run in group]:
    for name, values in run.metrics.items():
      times[name] = max(times.get(name, 0), len(values))
  several = main_metrics([name for name, count in times.items() if count > 1])
  names = several or main_metrics(times) or list(times)
  if len(groups) > 1:  # a panel each: what validation shows, training need not
    held_out = {n for n in names if n.startswith("validation/")}
    held_out -= {"validation/loss"}
    spared = {n.replace("validation/", "train/") for n in held_out}
    names = [name for name in names if name not in spared]
  return names


def draw_curves(
  groups: Groups, names: Sequence[str], colored: Sequence[str]
) -> "Figure":
  """Draws a panel for each metric, with a line for each group.

  Of one group alone, a panel holds a metric on all splits.

  Args:
    groups: runs by label.
    names: metrics to draw.
    colored: labels to draw in colour, at most `MOST`; the others are grey.
  """
  alone = len(groups) == 1
  panels = _by_metric(names) if alone else {name: [name] for name in names}
  splits = list(dict.fromkeys(map(_split, names)))
  columns = 2 if len(panels) in (2, 4) else min(len(panels), 3)
  rows = -(-len(panels) // columns)
  figure = new_figure(4.2 * columns, 3.1 * rows + 0.4)
  axes = list(np.ravel(figure.subplots(rows, columns, squeeze=False)))
  for axis in axes[len(panels) :]:
    axis.remove()
  for axis, (title, shown) in zip(axes, panels.items(), strict=False):
    drawn = []
    for label in sorted(groups, key=colored.__contains__):  # colours on top
      for name in shown:
        line = _line(groups[label], name)
        if line is not None:
          drawn.append(line.mean)
          if alone:
            split = _split(name)
            _draw(axis, line, _COLORS[splits.index(split) % MOST], split)
          elif label in colored:
            color = _COLORS[colored.index(label)]
            _draw(axis, line, color, _title(label, groups[label]))
          else:
            _draw(axis, line, _OTHERS, f"{len(groups) - len(colored)} others")
    _finish(axis, title, drawn)
    if alone and len(shown) > 1:
      axis.legend(frameon=False, fontsize=9)
  if not alone:
    _add_legend(figure, axes[: len(panels)], most=int(12 * 4.2 * columns))
  return figure


def _by_metric(names: Sequence[str]) -> dict[str, list[str]]:
  """The panels of one run: the perturbed loss is a loss, too."""
  panels: dict[str, list[str]] = {}
  for name in names:
    metric = name.rpartition("/")[2].removeprefix("perturbed_")
    panels.setdefault(metric, []).append(name)
  return panels


def _split(name: str) -> str:
  split, _, metric = name.rpartition("/")
  split += ", perturbed" if metric == "perturbed_loss" else ""
  return split.replace("/", ", ")


def _title(label: str, group: Sequence[Run]) -> str:
  return label if len(group) == 1 else f"{label} ({len(group)} runs)"


def _line(group: Sequence[Run], name: str) -> _Line | None:
  """Over the steps that all runs of the group have logged."""
  found = [run.metrics[name] for run in group if run.metrics.get(name)]
  if not found:
    return None
  steps = [step for step in found[0] if all(step in one for one in found)]
  if not steps:  # they log at other steps
    found, steps = found[:1], list(found[0])
  values = np.array([[one[step] for step in steps] for one in found])
  error = scipy.stats.sem(values) if len(found) > 1 else None
  return _Line(steps, values.mean(0), error)


def _draw(axis: Any, line: _Line, color: str, label: str) -> None:
  marker = "o" if len(line.steps) == 1 else None
  axis.plot(
    *(line.steps, line.mean), color=color, label=label, marker=marker,
    linewidth=0.8 if color == _OTHERS else 1.5,
  )  # fmt: skip
  if line.error is not None and color != _OTHERS:
    low, high = line.mean - line.error, line.mean + line.error
    axis.fill_between(line.steps, low, high, color=color, alpha=0.2, lw=0)


def _finish(axis: Any, title: str, drawn: Sequence[np.ndarray]) -> None:
  values = np.concatenate(drawn)
  positive = values[np.isfinite(values) & (values > 0)]
  if len(positive) == len(values) and positive.max() > 30 * positive.min():
    axis.set_yscale("log")
  axis.set(title=title, xlabel="step")
  axis.spines[["top", "right"]].set_visible(False)
  add_grid(axis)


def _add_legend(figure: "Figure", axes: Sequence[Any], most: int) -> None:
  """One for all panels, `most` letters wide; those in colour come first."""
  lines = {line.get_label(): line for axis in axes for line in axis.lines}
  last = [label for label in lines if lines[label].get_color() == _OTHERS]
  first = sorted(
    lines.keys() - set(last),
    key=lambda label: _COLORS.index(lines[label].get_color()),
  )
  labels = [*first, *last]
  fit = most // (max(map(len, labels)) + 8)  # letters of a line, and a gap
  figure.legend(
    [lines[label] for label in labels],
    labels,
    loc="outside upper center",
    ncols=max(1, min(len(labels), 4, fit)),
    frameon=False,
  )
