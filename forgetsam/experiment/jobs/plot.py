"""The job `plot`: learning curves of any number of runs, side by side."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import logging

from forgetsam.experiment.config import ConfigError, PlotFlags, refusal
from forgetsam.experiment.jobs._curves import (
  MOST,
  Groups,
  draw_curves,
  main_metrics,
  metrics_to_draw,
)
from forgetsam.experiment.jobs._runs import (
  Run,
  find_runs,
  group_runs,
  read_run,
)
from forgetsam.experiment.run import METRICS, check_folder
from forgetsam.experiment.sweep import mean_over_runs
from forgetsam.experiment.tables import markdown_table, mean_text

CURVES = "curves.png"


def plot_runs(flags: PlotFlags) -> Path:
  """Draws the runs' curves, and prints a table of their last numbers.

  Runs that differ in their seeds alone are one line: the mean, with its
  standard error as a band. Of more than eight configurations the best are in
  colour, by validation accuracy, or else by the lowest loss.

  Args:
    flags: the runs, and what to draw.

  Returns:
    The picture: `curves.png` in the run's folder, in the one that holds all of
    several runs, or in `--output`.

  Raises:
    ConfigError: there is no run, none has logged anything, a metric is not
      there, or the folder cannot be written to.
  """
  folders = find_runs(flags.runs)
  output = flags.output or Path(os.path.commonpath(folders))
  check_folder(output, "--output")
  runs = [read_run(folder) for folder in folders]
  for run in runs:
    if not run.metrics:
      logging.warning("%s has logged nothing yet", run.folder)
  groups = group_runs([run for run in runs if run.metrics])
  if not groups:
    text = f"runs with a line in their {METRICS}; {folders[0]} has none yet"
    raise ConfigError(refusal("--workdir", ",".join(flags.runs), text))
  names = list(flags.metrics) or metrics_to_draw(groups)
  _check_logged(names, groups)
  ranked = _best_first(groups)
  few = len(groups) <= MOST
  print(_table({g: groups[g] for g in (groups if few else ranked)}, flags))
  colored = list(groups) if few else ranked[: MOST - 2]
  path = output / CURVES
  draw_curves(groups, names, colored).savefig(path)
  drawn = [run.folder for group in groups.values() for run in group]
  count = f"{len(drawn)} runs" if len(drawn) > 1 else str(drawn[0])
  print(f"The curves of {count} are in {path}")
  return path


def _check_logged(names: Sequence[str], groups: Groups) -> None:
  logged = {
    name for group in groups.values() for run in group for name in run.metrics
  }
  for name in names:
    if name not in logged:
      text = "what the runs logged: " + ", ".join(sorted(logged))
      raise ConfigError(refusal("--metrics", name, text))


def _best_first(groups: Groups) -> list[str]:
  """Labels, by the first of these that all runs have."""
  for name, sign in [
    ("validation/accuracy", -1),
    ("validation/loss", 1),
    ("train/loss", 1),
  ]:
    finals = {
      label: [run.final.get(name, math.nan) for run in group]
      for label, group in groups.items()
    }
    ranks = {k: sign * mean_over_runs(v).mean for k, v in finals.items()}
    if any(map(math.isfinite, ranks.values())):
      return sorted(groups, key=lambda k: (math.isnan(ranks[k]), ranks[k]))
  return list(groups)


def _table(groups: Groups, flags: PlotFlags) -> str:
  """The last numbers, as means and standard errors."""
  finals = {
    label: {
      name: [run.final[name] for run in group if name in run.final]
      for name in dict.fromkeys(name for run in group for name in run.final)
    }
    for label, group in groups.items()
  }
  names = list(flags.metrics) or _columns(finals)
  rows = [
    [
      label,
      str(len(group)),
      _steps(group),
      *(_cell(finals[label].get(name, [])) for name in names),
    ]
    for label, group in groups.items()
  ]
  header = ["run", "seeds", "steps", *names]
  return markdown_table(header, rows, aligned=True)


def _columns(finals: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
  every = dict.fromkeys(name for found in finals.values() for name in found)
  names = main_metrics(every)
  return [n for n in names if n == "train/loss" or not n.startswith("train/")]


def _steps(group: Sequence[Run]) -> str:
  lasts = {max(s for v in run.metrics.values() for s in v) for run in group}
  return "-".join(str(step) for step in sorted({min(lasts), max(lasts)}))


def _cell(values: Sequence[float]) -> str:
  return mean_text(*mean_over_runs(values)) if values else ""
