"""Test accuracy against the cost of a step, for cheap perturbations.

    PYTHONPATH=. python benchmarks/pareto.py --workdir=runs/pareto

Tunes every variant of `configs/cheap_fashion_2k.py` on held-out images, trains
it with fresh seeds, measures what a step costs as a multiple of plain training,
and writes `pareto.md` and `pareto.png`. What is finished is not done again.
An hour or two on one core. `--variants=plain,sam,momentum,zoo` compares all
published methods with three of the others.
"""

import argparse
import csv
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from configs.cheap_fashion_2k import PUBLISHED, VARIANTS
from forgetsam.experiment.build import build_sources
from forgetsam.experiment.config import (
  SweepFlags,
  apply_overrides,
  load_config_file,
  path_of_flag,
  reads_previous,
)
from forgetsam.experiment.figures import new_figure
from forgetsam.experiment.jobs.sweep import sweep
from forgetsam.experiment.run import read_json, write_json
from forgetsam.experiment.sweep import (
  mean_over_runs,
  paired_difference,
  read_settings,
)
from forgetsam.experiment.sweep._program import RunBatches
from forgetsam.experiment.sweep._runner import Runner
from forgetsam.experiment.tables import (
  interval_text,
  markdown_table,
  mean_text,
)

CONFIG = "configs/cheap_fashion_2k.py"
PLAIN = [name for name in VARIANTS if name.startswith("plain")]
PLAIN_GRID = (
  "optimizer.learning_rate=0.02,0.05,0.2;"
  "optimizer.weight_decay=0.1,0.15,0.2,0.3"
)
_RHO, _DECAY = "perturbation.rho=0.1,0.2,0.4", "optimizer.weight_decay=0,0.05"
FULL_GRID = f"{_RHO};{_DECAY},0.15;micro_batch_size=128,32"
# Micro-batches cost time themselves: what is to be cheap has one.
CHEAP_GRID = f"{_RHO};{_DECAY},0.1,0.15;micro_batch_size=128"
FINER_GRID = (
  "perturbation.rho=0.15,0.2,0.3;optimizer.weight_decay=0,0.025,0.05,0.1;"
  "micro_batch_size=128"
)
MOMENTUM_GRID = f"perturbation.rho=0.2,0.3,0.5,0.7,1;{_DECAY},0.1,0.15"
# The rule weighs the sharpness ninefold.
WEIGHTED_GRID = (
  f"perturbation.rho=0.01,0.02,0.05;{_DECAY},0.15;micro_batch_size=128,32"
)
# In units of the weights' size, or of each weight's move.
ASAM_GRID = f"perturbation.rho=0.5,1,2;{_DECAY},0.15;micro_batch_size=128"
LAYERWISE_GRID = f"perturbation.rho=0.02,0.05,0.1;{_DECAY},0.15"
LINF_GRID = f"perturbation.rho=0.01,0.02,0.05;{_DECAY},0.15"
# Its decay is at a learning rate of 1.
POLYAK_GRID = (
  "perturbation.rho=0.1,0.2,0.4;optimizer.weight_decay=0,0.0025,0.0075;"
  "micro_batch_size=128"
)
GRIDS = {
  **dict.fromkeys(PLAIN, PLAIN_GRID),
  **dict.fromkeys(("sam", "obf", "friendly"), FULL_GRID),
  **dict.fromkeys(
    ("sam_eighth", "friendly_quarter", "friendly_eighth"), FINER_GRID
  ),
  "momentum": MOMENTUM_GRID,
  **dict.fromkeys(("weighted", "wsam_decoupled"), WEIGHTED_GRID),
  "asam": ASAM_GRID,
  **dict.fromkeys(
    ("asam_layerwise", "layer_sam", "look_layer_sam"), LAYERWISE_GRID
  ),
  "asam_linf": LINF_GRID,
  "polyak_step": POLYAK_GRID,
}


class Point(NamedTuple):
  """A variant in the picture."""

  accuracy: Sequence[float]  # on test images, in the order of seeds
  cost: float  # time of a run, as a multiple of plain training's


def main(argv: Sequence[str] | None = None) -> None:
  """Tunes, trains, measures and draws."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--workdir", required=True)
  cheap = ",".join(name for name in VARIANTS if name not in PUBLISHED)
  parser.add_argument("--variants", default=cheap)
  parser.add_argument("--tuning_seeds", type=int, default=4)
  parser.add_argument("--seeds", type=int, default=15)
  parser.add_argument("--rounds", type=int, default=5)
  options = parser.parse_args(argv)
  variants = [
    name
    for given in options.variants.split(",")
    for name in (PUBLISHED if given == "zoo" else [given])
  ]
  workdir = path_of_flag("--workdir", options.workdir)
  for variant in variants:
    grid = GRIDS.get(variant, CHEAP_GRID)
    tuning = SweepFlags((variant,), options.tuning_seeds, 0, grid, True, None)
    sweep(CONFIG, [], tuning, workdir / "tuning")
  best = workdir / "tuning" / "best.json"
  reporting = SweepFlags(
    tuple(variants), options.seeds, options.tuning_seeds, None, False, best
  )
  sweep(CONFIG, [], reporting, workdir / "report")
  chosen = read_json(best) or {}
  costs = read_json(workdir / "costs.json")
  if costs is None or set(costs) != set(variants):
    costs = measure_costs(variants, chosen, options.rounds)
    write_json(workdir / "costs.json", costs)
  points = {
    variant: Point(accuracies(workdir, variant), costs[variant])
    for variant in variants
  }
  text = table(points, chosen)
  (workdir / "pareto.md").write_text(text)
  print(text)
  draw(workdir / "pareto.png", points)


def accuracies(workdir: Path, variant: str) -> list[float]:
  """A variant's test accuracies, in the order of seeds."""
  with (workdir / "report" / "runs.csv").open() as file:
    return [
      float(row["test/accuracy"])
      for row in csv.DictReader(file)
      if row["variant"] == variant
    ]


def measure_costs(
  variants: Sequence[str], chosen: Mapping[str, Any], rounds: int
) -> dict[str, float]:
  """The time of a variant's run as a multiple of plain training's.

  All variants take turns, epoch by epoch, each at its chosen setting. Each of
  its epochs is compared with plain training's of the same turn; the median over
  rounds is added up over the run, so that steps that are idle for a part of
  training, or for four of five steps, count as they are.
  """
  runs = {}
  for variant in variants:
    config = load_config_file(f"{CONFIG}:{variant}")
    settings = read_settings(chosen, variant)
    apply_overrides(config, [f"--config.{k}={v}" for k, v in settings.items()])
    runs[variant] = _Epochs(config)
  longest = max(run.num_epochs for run in runs.values())
  seconds = np.full((rounds, longest, len(variants)), np.nan)
  for r in range(rounds):
    for run in runs.values():
      run.restart()
    for epoch in range(longest):
      for i in np.random.default_rng((r, epoch)).permutation(len(variants)):
        run = runs[variants[i]]
        if epoch < run.num_epochs:
          seconds[r, epoch, i] = run.seconds_of(epoch)
  plain = seconds[:, : runs["plain"].num_epochs, variants.index("plain")]
  costs = {}
  for i, variant in enumerate(variants):
    own = seconds[:, : plain.shape[1], i]
    ratio = float(np.mean(np.median(own / plain, axis=0)))
    costs[variant] = ratio * runs[variant].num_epochs / plain.shape[1]
  return costs


class _Epochs:
  """A run of a sweep's compiled program, an epoch at a time."""

  def __init__(self, config: Any):
    runner = Runner()
    self._program, self._numbers = runner._program(config)
    sources = build_sources(config, runner.images(config))
    self._data = RunBatches(config, sources.train)
    steps = self._program.steps_per_epoch
    self._xs = list(
      self._data.chunks(
        config.seed,
        self._program.num_steps,
        steps,
        previous=reads_previous(config),
      )
    )
    self.num_epochs = len(self._xs)
    self.restart()
    self.seconds_of(0)  # compiles

  def restart(self) -> None:
    self._state = self._program.start(self._numbers)

  def seconds_of(self, epoch: int) -> float:
    start = time.perf_counter()
    self._state, _ = self._program.advance(
      self._numbers, self._state, self._data.resident, self._xs[epoch]
    )
    jax.block_until_ready(self._state)
    return time.perf_counter() - start


def beaten_by(point: Point, cheaper: Mapping[str, Point]) -> str:
  """The first of the cheaper variants that is better by more than chance.

  Better by a paired difference whose 95 % interval is above zero, for itself.
  """
  for name, other in cheaper.items():
    low = paired_difference(other.accuracy, point.accuracy).low
    if low is not None and low > 0:
      return name
  return ""


def table(points: Mapping[str, Point], chosen: Mapping[str, Any]) -> str:
  """Cost, accuracy and the share of the larger full gain, cheapest first."""
  plain = points["plain"].accuracy
  full = max(
    np.mean(points[name].accuracy) - np.mean(plain)
    for name in ("sam", "obf")
    if name in points
  )
  header = ["variant", "cost", "test accuracy", "minus plain"]
  header += ["share of the full gain", "beaten by a cheaper", "setting"]
  rows, cheaper = [], dict[str, Point]()
  for name, point in sorted(points.items(), key=lambda item: item[1].cost):
    gain = paired_difference(point.accuracy, plain)
    setting = ", ".join(
      f"{key.rpartition('.')[2]} {value:g}"
      for key, value in chosen[name]["overrides"].items()
    )
    accuracy = mean_text(*mean_over_runs(point.accuracy))
    share = f"{gain.mean / full:.0%}"
    cost, minus_plain = f"{point.cost:.2f}", interval_text(*gain)
    beaten = beaten_by(point, cheaper)
    rows.append([name, cost, accuracy, minus_plain, share, beaten, setting])
    cheaper[name] = point
  return markdown_table(header, rows)


def draw(path: Path, points: Mapping[str, Point]) -> None:
  """Accuracy against cost; a line joins those that nothing cheaper beats.

  What is far below plain training is a triangle at the lower edge.
  """
  figure = new_figure(9, max(5.5, 0.21 * len(points)), dpi=120)
  axes = figure.subplots()
  colors = {"plain": "tab:gray", "sam": "tab:blue", "obf": "tab:orange"}
  ordered = sorted(points.items(), key=lambda item: item[1].cost)
  lowest = np.mean(points["plain"].accuracy) - 0.006
  best, steps = -np.inf, []
  for number, (name, point) in enumerate(ordered, start=1):
    mean = mean_over_runs(point.accuracy)
    color = colors.get(name.split("_")[0], "tab:green")
    height = max(mean.mean, lowest)
    axes.errorbar(
      point.cost,
      height,
      mean.standard_error if mean.mean > lowest else None,
      fmt="o" if mean.mean > lowest else "v",
      color=color,
      label=f"{number}  {name}  {mean.mean:.4f}",
    )
    look = {"textcoords": "offset points", "fontsize": 8}
    axes.annotate(str(number), (point.cost, height), (5, 4), **look)
    if mean.mean > best:
      best = mean.mean
      steps.append((point.cost, best))
  axes.step(*zip(*steps, strict=True), where="post", color="0.7", zorder=0)
  axes.axvline(1.25, color="0.8", linestyle=":")
  ticks = [
    t for t in (1, 1.5, 2, 3, 4, 6, 8, 16, 32) if t <= ordered[-1][1].cost
  ]
  axes.set_xscale("log")
  axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
  axes.minorticks_off()
  axes.set_xlabel("time of a run, in runs of plain training")
  axes.set_ylabel("test accuracy, mean and standard error")
  figure.legend(loc="outside right center", fontsize=8, markerscale=0.7)
  figure.savefig(path)


if __name__ == "__main__":
  main()
