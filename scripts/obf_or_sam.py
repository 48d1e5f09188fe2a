"""Gathers what every setting says about OBF and SAM, from the docs' own runs.

    python -m scripts.obf_or_sam

It writes the table of docs/obf_or_sam.md and the picture beside it. A finished
comparison gets a line in `SETTINGS`.
"""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from forgetsam.experiment.figures import add_grid, add_legend, new_figure
from forgetsam.experiment.sweep import (
  Difference,
  mean_over_runs,
  paired_difference,
)
from forgetsam.experiment.tables import interval_text, markdown_table

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE, PICTURE = DOCS / "obf_or_sam.md", DOCS / "obf_or_sam/differences.png"
BEGIN, END = "<!-- table -->\n", "<!-- end -->\n"


class Setting(NamedTuple):
  """Where a comparison's runs are, and what they are called there.

  Attributes:
    title: of the table's row.
    runs: a CSV file below docs/, a row for each run.
    methods: what the file calls plain training, SAM and OBF.
    where: the columns' values that choose the rows.
    accuracy: the column of the test accuracy.
    loss: the column of the test loss, or None.
    column: that of the method; of several, their values are joined by commas.
    first_seed: of the runs to take; those before chose the settings.
  """

  title: str
  runs: str
  methods: tuple[str, str, str] = ("plain", "sam", "obf")
  where: Mapping[str, str] = {}
  accuracy: str = "test/accuracy"
  loss: str | None = "test/loss"
  column: str = "variant"
  first_seed: int = 0


def _both_gammas(title: str, arm: str) -> list[Setting]:
  """An arm of docs/noisy_cifar10, with either gamma of OBF."""
  return [
    Setting(
      f"{title}, OBF gamma {gamma}",
      f"noisy_cifar10/{arm}/runs.csv",
      ("plain", "sam", obf),
    )
    for gamma, obf in ((0, "obf_gamma0"), (1, "obf"))
  ]


_BIASED = Setting(
  "known bias, patch random, OBF gamma 0",
  "known_bias/runs.csv",
  ("plain", "sam", "obf_gamma0"),
  {"micro_batch_size": "128", "weight_decay": "0.2"},
  "test_random/accuracy",
  None,
  "method",
  first_seed=5,
)
# The m of each method's highest validation accuracy, in docs' choices.csv.
_ALONG_M = Setting(
  "20 % wrong labels, best m (SAM: 32, OBF gamma 0: 8)",
  "noisy_cifar10/m/runs.csv",
  ("plain,128", "sam,32", "gamma0,8"),
  column="method,m",
)
SETTINGS = (
  Setting(
    "digits, 40 % wrong labels, OBF gamma 0",
    "demo/curves.csv",
    where={"epoch": "100"},
    accuracy="test_accuracy",
    loss="test_loss",
    column="method",
  ),
  Setting(
    "Fashion-MNIST, 20 % wrong labels, OBF gamma 1",
    "fashion_2k/noisy/runs.csv",
  ),
  _ALONG_M,
  _ALONG_M._replace(
    title="20 % wrong labels, best m (SAM: 32, OBF gamma 1: 2)",
    methods=("plain,128", "sam,32", "gamma1,2"),
  ),
  Setting(
    "Fashion-MNIST, clean labels, OBF gamma 1", "fashion_2k/clean/runs.csv"
  ),
  *_both_gammas("CNN, CIFAR-10, 20 % wrong labels", "cnn"),
  Setting(
    "CNN, CIFAR-10, clean labels, OBF gamma 0",
    "noisy_cifar10/clean/runs.csv",
    ("plain", "sam", "obf_gamma0"),
  ),
  *_both_gammas("ViT, CIFAR-10, 20 % wrong labels", "vit"),
  *_both_gammas("ViT, all at weight decay 5", "vit_decay"),
  _BIASED,
  _BIASED._replace(
    title="known bias, patch random, OBF gamma 1",
    methods=("plain", "sam", "obf_gamma1"),
  ),
)


class Row(NamedTuple):
  """A setting's result; differences are in points of accuracy, and nats.

  Attributes:
    title: of the setting.
    plain: plain training's mean accuracy, in percent.
    differences: SAM and OBF minus plain, then OBF minus SAM.
    loss: OBF's test loss minus SAM's, or None.
    runs: of each method.
  """

  title: str
  plain: float
  differences: tuple[Difference, Difference, Difference]
  loss: Difference | None
  runs: int


def rows() -> list[Row]:
  """Every setting's result."""
  return [_row(setting) for setting in SETTINGS]


def _row(setting: Setting) -> Row:
  accuracy = _by_method(setting, setting.accuracy, 100.0)
  plain, sam, obf = (accuracy[name] for name in setting.methods)
  loss = None
  if setting.loss is not None:
    losses = _by_method(setting, setting.loss, 1.0)
    _, sam_name, obf_name = setting.methods
    loss = paired_difference(losses[obf_name], losses[sam_name])
  differences = (
    paired_difference(sam, plain),
    paired_difference(obf, plain),
    paired_difference(obf, sam),
  )
  mean = mean_over_runs(plain).mean
  return Row(setting.title, mean, differences, loss, len(plain))


def _by_method(
  setting: Setting, metric: str, scale: float
) -> dict[str, list[float]]:
  """The seeds that all methods have, in order."""
  values: dict[str, dict[int, float]] = {}
  with (DOCS / setting.runs).open() as file:
    for run in csv.DictReader(file):
      if all(run[key] == value for key, value in setting.where.items()):
        name = ",".join(run[column] for column in setting.column.split(","))
        found = values.setdefault(name, {})
        if (seed := int(run["seed"])) >= setting.first_seed:
          assert seed not in found, (setting.title, run)
          found[seed] = scale * float(run[metric])
  names = setting.methods
  common = sorted(set.intersection(*(set(values[n]) for n in names)))
  return {n: [values[n][seed] for seed in common] for n in names}


def table(found: list[Row]) -> str:
  """The rows in Markdown."""
  header = ["setting", "plain (%)", "SAM - plain", "OBF - plain", "OBF - SAM"]
  header += ["OBF - SAM, loss (nats)", "runs"]
  lines = [
    [
      row.title,
      f"{row.plain:.1f}",
      *(interval_text(*d, digits=1) for d in row.differences),
      "" if row.loss is None else interval_text(*row.loss, digits=3),
      str(row.runs),
    ]
    for row in found
  ]
  return markdown_table(header, lines)


def draw(found: list[Row], path: Path) -> None:
  """Differences to plain training, a line for each setting; writes a PNG."""
  figure = new_figure(7.5, 1.2 + 0.5 * len(found))
  axis = figure.subplots()
  looks: list[dict[str, Any]] = [
    {"label": "SAM", "color": "#0b4f8a", "fmt": "o"},
    {"label": "OBF", "color": "#c1440e", "fmt": "s", "mfc": "white"},
  ]
  for y, row in enumerate(found):
    for shift, look, (mean, low, high) in zip(
      (-0.13, 0.13), looks, row.differences[:2], strict=True
    ):
      assert low is not None
      assert high is not None
      reach = [[mean - low], [high - mean]]
      axis.errorbar(mean, y + shift, xerr=reach, capsize=3, **look)
  axis.axvline(0, color="black", linestyle=":", linewidth=1)
  axis.set_yticks(range(len(found)), [row.title for row in found])
  axis.set_ylim(len(found) - 0.5, -0.5)
  axis.set_xlabel("test accuracy minus plain training's (points)")
  add_grid(axis, "x")
  add_legend(figure, axis, ncols=2)
  figure.savefig(path)


def main() -> None:
  """Writes the page's table and its picture."""
  found = rows()
  before, _, rest = PAGE.read_text().partition(BEGIN)
  after = rest.partition(END)[2]
  PAGE.write_text(before + BEGIN + table(found) + END + after)
  PICTURE.parent.mkdir(exist_ok=True)
  draw(found, PICTURE)


if __name__ == "__main__":
  main()
