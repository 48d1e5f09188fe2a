"""Makes the tables and the picture of accuracy along m.

    python -m scripts.m_curve RUNS DOCS

RUNS is the folder that `scripts/noisy_cifar10.sh tune_m` and `report_m` had.
DOCS gets `choices.csv`, what validation chose at each m; `tuning.csv`, every
run that it chose among; `runs.csv`, every tested run; `along_m.csv` and
`along_m.md`, test accuracy and loss with paired differences; and `along_m.png`.
Without tested runs, the choices alone.
"""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from forgetsam.experiment.figures import add_grid, add_legend, new_figure
from forgetsam.experiment.sweep import (
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
from scripts.noisy_files import read_arguments, write_runs

METHODS = {"sam": "SAM", "gamma0": "OBF, gamma 0", "gamma1": "OBF, gamma 1"}
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
LOOKS: Mapping[str, Mapping[str, Any]] = {
  "sam": {"color": "#0b4f8a", "marker": "o", "linestyle": "-"},
  "gamma0": {"color": "#c1440e", "marker": "s", "linestyle": "--"},
  "gamma1": {"color": "#777777", "marker": "^", "linestyle": ":"},
}
SCORES = {"test/accuracy": "test accuracy", "test/loss": "test loss (nats)"}
_DRAWN = "test/accuracy"


class Choice(NamedTuple):
  """What validation chose for a method at an m.

  Attributes:
    method: a key of `METHODS`, or "plain".
    m: examples of a micro-batch; plain training's is the batch.
    setting: the tuned keys and their values.
    validation: mean accuracy of the setting, with its standard error.
  """

  method: str
  m: int
  setting: dict[str, Any]
  validation: Mean


class Point(NamedTuple):
  """A method's score at an m, tested with fresh seeds.

  Attributes:
    method: as in `Choice`.
    m: as in `Choice`.
    score: a key of `SCORES`.
    mean: over seeds.
    minus_plain: paired over seeds; None for plain training.
    minus_whole: the difference to the largest m of the method, or None there.
    minus_sam: the difference to SAM at the same m; None for SAM and plain.
    runs: the number of seeds.
  """

  method: str
  m: int
  score: str
  runs: int
  mean: Mean
  minus_plain: Difference | None
  minus_whole: Difference | None
  minus_sam: Difference | None


def folders() -> dict[tuple[str, int], str]:
  """Where each method and m has its runs, below `tune/m` and `report/m`."""
  perturbed = {
    (method, m): f"{m}/{method}" for method in METHODS for m in SIZES
  }
  return {("plain", SIZES[-1]): "plain", **perturbed}


def read_choices(runs: Path) -> list[Choice]:
  """The choices of the methods and m whose tuning is complete."""
  found = []
  for (method, m), folder in folders().items():
    path = runs / "tune/m" / folder / "best.json"
    if path.exists():
      (best,) = json.loads(path.read_text()).values()
      score = Mean(best["validation/accuracy"], best["standard_error"])
      found.append(Choice(method, m, best["overrides"], score))
  return found


def read_runs(runs: Path, files: str) -> list[dict[str, str]]:
  """Every run of these files of each folder, with its method and m."""
  found = []
  for (method, m), folder in folders().items():
    for path in runs.glob(files.format(folder)):
      with path.open() as file:
        rows = list(csv.DictReader(file))
      found += [{"method": method, "m": str(m)} | row for row in rows]
  return found


def points(runs: list[dict[str, str]]) -> list[Point]:
  """Means and paired differences, of methods and m without diverged runs."""
  seeds: dict[tuple[str, int], dict[str, dict[str, str]]] = {}
  for run in runs:
    key = run["method"], int(run["m"])
    seeds.setdefault(key, {})[run["seed"]] = run
  kept = {
    key: found
    for key, found in seeds.items()
    if not any(run["diverged_at"] for run in found.values())
  }
  return [
    Point(
      *key,
      score,
      len(found),
      mean_over_runs([float(run[score]) for run in found.values()]),
      _paired(found, kept.get(("plain", SIZES[-1])), score),
      _paired(found, kept.get((key[0], SIZES[-1])), score),
      None
      if key[0] == "plain"
      else _paired(found, kept.get(("sam", key[1])), score),
    )
    for score in SCORES
    for key, found in kept.items()
  ]


def _paired(
  mine: Mapping[str, Mapping[str, str]],
  base: Mapping[str, Mapping[str, str]] | None,
  score: str,
) -> Difference | None:
  if base is None or base is mine or set(base) != set(mine):
    return None
  seeds = sorted(mine)
  return paired_difference(
    [float(mine[seed][score]) for seed in seeds],
    [float(base[seed][score]) for seed in seeds],
  )


def markdown(found: list[Point]) -> str:
  """A table for each score, a row for each method and m."""
  tables = []
  for score, title in SCORES.items():
    header = ["method", "m", title, "minus plain", f"minus m = {SIZES[-1]}"]
    header.append("minus SAM")
    rows = [
      [
        METHODS.get(p.method, p.method),
        str(p.m),
        mean_text(*p.mean),
        *(
          "" if d is None else interval_text(*d)
          for d in (p.minus_plain, p.minus_whole, p.minus_sam)
        ),
        str(p.runs),
      ]
      for p in found
      if p.score == score
    ]
    tables.append(markdown_table([*header, "runs"], rows))
  return "\n".join(tables)


def draw(path: Path, choices: list[Choice], found: list[Point]) -> None:
  """The chosen radii and the accuracies along m; writes a PNG."""
  figure = new_figure(9 if found else 8, 3.8)
  radius, validation, *tested = figure.subplots(1, 2 + bool(found))
  for method, look in LOOKS.items():
    mine = [c for c in choices if c.method == method]
    sizes = [c.m for c in mine]
    rhos = [c.setting["perturbation.rho"] for c in mine]
    radius.plot(sizes, rhos, label=METHODS[method], **look)
    draw_curve(validation, sizes, [c.validation for c in mine], method)
    for axis in tested:
      scored = [p for p in found if p.method == method and p.score == _DRAWN]
      draw_curve(axis, [p.m for p in scored], [p.mean for p in scored], method)
  plain = [c.validation for c in choices if c.method == "plain"]
  plain += [p.mean for p in found if (p.method, p.score) == ("plain", _DRAWN)]
  for axis, (mean, _) in zip((validation, *tested), plain, strict=False):
    axis.axhline(mean, color="black", linestyle=":", label="plain training")
  radius.set_yscale("log", base=2)
  rhos = sorted({c.setting.get("perturbation.rho") for c in choices} - {None})
  radius.set_yticks(rhos, [f"{rho:g}" for rho in rhos])
  titles = ("chosen radius", "validation accuracy", "test accuracy")
  for axis, title in zip((radius, validation, *tested), titles, strict=False):
    lay_out(axis)
    axis.set_xlabel("m, examples of a micro-batch")
    axis.set_ylabel(title)
  add_legend(figure, validation, ncols=4)
  figure.savefig(path)


def lay_out(axis: Any) -> None:
  """Gives an axis m, by powers of two, and a grid."""
  axis.set_xscale("log", base=2)
  axis.set_xticks(SIZES, [str(m) for m in SIZES])
  axis.minorticks_off()
  add_grid(axis)


def draw_curve(
  axis: Any, sizes: list[int], means: list[Mean], method: str
) -> None:
  """Draws means against m, with their standard errors."""
  errors = [mean.standard_error or 0.0 for mean in means]
  values = [mean.mean for mean in means]
  label = f"{METHODS[method]} ± s.e."
  axis.errorbar(sizes, values, errors, capsize=3, label=label, **LOOKS[method])


def write(runs: Path, docs: Path) -> None:
  """Writes what the folder's runs give.

  Args:
    runs: the folder of `scripts/noisy_cifar10.sh`.
    docs: where to.
  """
  choices, tested = read_choices(runs), read_runs(runs, "report/m/{}/runs.csv")
  if not choices:
    raise SystemExit(f"RUNS={runs} has no tune/m/*/best.json: run tune_m first")
  keys = list(dict.fromkeys(key for c in choices for key in c.setting))
  lines = [
    [c.method, c.m, *(c.setting.get(key) for key in keys), *c.validation]
    for c in choices
  ]
  header = ["method", "m", *keys, "validation_accuracy", "standard_error"]
  (docs / "choices.csv").write_text(csv_text(header, lines))
  tuning = read_runs(runs, "tune/m/{}/tuning/*.csv")
  write_runs(docs / "tuning.csv", tuning)
  found = points(tested)
  if tested:
    write_runs(docs / "runs.csv", tested)
    header = ["method", "m", "score", "runs", "mean", "standard_error"]
    differences = "minus_plain", "minus_whole", "minus_sam"
    for name in differences:
      header += [name, f"{name}_low", f"{name}_high"]
    none = (None, None, None)
    rows = [
      [*p[:4], *p.mean]
      + [x for name in differences for x in getattr(p, name) or none]
      for p in found
    ]
    (docs / "along_m.csv").write_text(csv_text(header, rows))
    (docs / "along_m.md").write_text(markdown(found))
  draw(docs / "along_m.png", choices, found)


def main() -> None:
  """Reads the command line."""
  runs, docs = read_arguments("m_curve", __doc__, "runs")
  write(Path(runs), Path(docs))


if __name__ == "__main__":
  main()
