"""Makes the table and the picture of forgetting and sharpness along m.

    python -m scripts.m_measures STUDY DOCS

STUDY is the folder of the job `study` of configs/noisy_fashion_m.py. DOCS gets
`measures.csv`, a row for each method, m and measure with its mean and standard
error over seeds, and `measures.png`.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet

from forgetsam.experiment.figures import add_grid, add_legend, new_figure
from forgetsam.experiment.run import check_folder
from forgetsam.experiment.sweep import Mean, mean_over_runs
from forgetsam.experiment.tables import csv_text
from scripts.m_curve import LOOKS, METHODS, SIZES

# Columns of the study's networks, and what they are called here.
MEASURES: Mapping[str, str] = {
  "specific_kl": "SAM probe, KL excess on its batch (nats)",
  "own_unconditional_train": "own perturbation, I(X; Ŷ), train (nats)",
  "own_conditional_train": "own perturbation, I(X; Ŷ | Y), train",
  "own_conditional_held_out": "own perturbation, I(X; Ŷ | Y), held out",
  "obf_probe_conditional_held_out": "OBF probe, I(X; Ŷ | Y), held out",
  "information_conditional_held_out": "before: I(X; Ŷ | Y), held out (nats)",
  "lambda_max": "largest Hessian eigenvalue",
  "m_sharpness_adaptive": "adaptive m-sharpness",
  "specific_kl_untrained": "SAM probe, KL excess, untrained (nats)",
  "trace": "trace of the Hessian",
  "train_loss": "training loss (nats)",
  "test_accuracy": "test accuracy",
}
_DRAWN = [*MEASURES][:8]


class Measure(NamedTuple):
  """A measure of a method's networks at an m.

  Attributes:
    method: a key of `METHODS`, or "plain".
    m: examples of a micro-batch.
    name: a key of `MEASURES`.
    runs: the number of seeds.
    mean: over seeds.
  """

  method: str
  m: int
  name: str
  runs: int
  mean: Mean


def measures(networks: Sequence[Mapping[str, Any]]) -> list[Measure]:
  """Means over the seeds of each method and m, without diverged networks.

  Raises:
    ValueError: a network is of another study.
  """
  order = ["plain", *METHODS]
  found: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
  for network in networks:
    method, _, _ = network["method"].partition("_m")
    if method not in order:
      raise ValueError(f"{method!r} is no method of configs/noisy_fashion_m.py")
    if not network["diverged"]:
      found.setdefault((method, network["m"]), []).append(network)
  return [
    Measure(
      *(method, m, name, len(several)),
      mean_over_runs([float(network[name]) for network in several]),
    )
    for name in MEASURES
    for (method, m), several in sorted(
      found.items(), key=lambda item: (order.index(item[0][0]), item[0][1])
    )
  ]


def draw(path: Path, found: Sequence[Measure]) -> None:
  """A panel for each measure, against m; writes a PNG."""
  figure = new_figure(11, 5.6)
  panels = figure.subplots(2, 4).flat
  for axis, name in zip(panels, _DRAWN, strict=True):
    for method, look in LOOKS.items():
      mine = [x for x in found if (x.method, x.name) == (method, name)]
      axis.errorbar(
        [x.m for x in mine],
        [x.mean.mean for x in mine],
        [x.mean.standard_error or 0.0 for x in mine],
        **{"capsize": 3, "label": f"{METHODS[method]} ± s.e.", **look},
      )
    for x in found:
      if (x.method, x.name) == ("plain", name):
        axis.axhline(
          x.mean.mean, color="black", linestyle=":", label="plain training"
        )
    axis.set_xscale("log", base=2)
    axis.set_xticks(SIZES, [str(m) for m in SIZES])
    axis.minorticks_off()
    axis.set_title(MEASURES[name], fontsize=8)
    axis.set_xlabel("m")
    add_grid(axis)
  add_legend(figure, axis, ncols=4)
  figure.savefig(path)


def main() -> None:
  """Reads the command line."""
  parser = argparse.ArgumentParser(
    prog="python -m scripts.m_measures",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("study", type=Path)
  parser.add_argument("docs", type=Path)
  given = parser.parse_args()
  check_folder(given.docs, "DOCS")
  path = given.study / "networks.parquet"
  if not path.exists():
    raise SystemExit(f"STUDY={given.study} has no networks.parquet: run that")
  found = measures(pyarrow.parquet.read_table(path).to_pylist())
  rows = [[*x[:4], *x.mean] for x in found]
  header = ["method", "m", "measure", "runs", "mean", "standard_error"]
  (given.docs / "measures.csv").write_text(csv_text(header, rows))
  draw(given.docs / "measures.png", found)


if __name__ == "__main__":
  main()
