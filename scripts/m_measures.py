"""Makes the table and the picture of forgetting and sharpness along m.

    python -m scripts.m_measures STUDY DOCS

STUDY is the folder of the job `study` of configs/noisy_fashion_m.py. DOCS gets
`measures.csv`, a row for each method, m and measure with its mean and standard
error over seeds, and `measures.png`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from forgetsam.experiment.figures import add_legend, new_figure
from forgetsam.experiment.sweep import Mean, mean_over_runs
from forgetsam.experiment.tables import csv_text
from forgetsam.studies.correlation import Networks, label, read_networks
from scripts.m_curve import METHODS, draw_curve, lay_out
from scripts.noisy_files import read_arguments

# Columns of the study's networks.
MEASURES = (
  "specific_kl",
  "own_unconditional_train",
  "own_conditional_train",
  "own_conditional_held_out",
  "obf_probe_conditional_held_out",
  "information_conditional_held_out",
  "lambda_max",
  "m_sharpness_adaptive",
  "specific_kl_untrained",
  "trace",
  "train_loss",
  "test_accuracy",
)
_DRAWN = MEASURES[:8]


class Measure(NamedTuple):
  """A measure of a method's networks at an m.

  Attributes:
    method: a key of `METHODS`, or "plain".
    m: examples of a micro-batch.
    name: one of `MEASURES`.
    runs: the number of seeds.
    mean: over seeds.
  """

  method: str
  m: int
  name: str
  runs: int
  mean: Mean


def measures(networks: Networks) -> list[Measure]:
  """Means over the seeds of each method and m, without diverged networks.

  Raises:
    ValueError: a network is of another study.
  """
  order = ["plain", *METHODS]
  found: dict[tuple[str, int], list[int]] = {}
  for i, variant in enumerate(networks["method"]):
    method, _, _ = variant.partition("_m")
    if method not in order:
      raise ValueError(f"{method!r} is no method of configs/noisy_fashion_m.py")
    if not networks["diverged"][i]:
      found.setdefault((method, int(networks["m"][i])), []).append(i)
  return [
    Measure(
      method, m, name, len(rows), mean_over_runs(networks[name][rows].tolist())
    )
    for name in MEASURES
    for (method, m), rows in sorted(
      found.items(), key=lambda item: (order.index(item[0][0]), item[0][1])
    )
  ]


def draw(path: Path, found: Sequence[Measure]) -> None:
  """A panel for each measure, against m; writes a PNG."""
  figure = new_figure(11, 5.6)
  panels = figure.subplots(2, 4).flat
  for axis, name in zip(panels, _DRAWN, strict=True):
    for method in METHODS:
      mine = [x for x in found if (x.method, x.name) == (method, name)]
      draw_curve(axis, [x.m for x in mine], [x.mean for x in mine], method)
    for x in found:
      if (x.method, x.name) == ("plain", name):
        axis.axhline(
          x.mean.mean, color="black", linestyle=":", label="plain training"
        )
    lay_out(axis)
    axis.set_title(label(name), fontsize=8)
    axis.set_xlabel("m")
  add_legend(figure, axis, ncols=4)
  figure.savefig(path)


def main() -> None:
  """Reads the command line."""
  study, docs = read_arguments("m_measures", __doc__, "study")
  path = Path(study) / "networks.parquet"
  if not path.exists():
    raise SystemExit(f"STUDY={study} has no networks.parquet: run that")
  found = measures(read_networks(path))
  rows = [[*x[:4], *x.mean] for x in found]
  header = ["method", "m", "measure", "runs", "mean", "standard_error"]
  (Path(docs) / "measures.csv").write_text(csv_text(header, rows))
  draw(Path(docs) / "measures.png", found)


if __name__ == "__main__":
  main()
