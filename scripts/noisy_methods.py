"""Makes the tables of an arm that compares methods on noisy CIFAR-10 images.

    python -m scripts.noisy_methods RUNS ARM DOCS

RUNS is the folder of `scripts/noisy_cifar10.sh`, ARM the name of its folders,
such as cnn or vit; cnn_more and cnn_configured, where they are there, belong to
cnn. DOCS gets `runs.csv`, every tested run, which may stand in for that of
RUNS/report/ARM later; `comparison.md` and `.csv`, each score with paired
differences to plain training and to SAM; `hypotheses.md`, their tests; and
`comparison.png`.
"""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from forgetsam.experiment.sweep import (
  Difference,
  Record,
  compare,
  comparison_csv,
  comparison_markdown,
  draw_comparison,
  holm_p_values,
  paired_difference,
  paired_p_value,
)
from forgetsam.experiment.tables import interval_text, markdown_table
from scripts.corrupted_cifar10 import CORRUPTIONS
from scripts.noisy_files import read_arguments, write_runs

SCORES = {
  "test/accuracy": "test accuracy",
  "test/loss": "test loss (nats)",
  "test/ece": "calibration error",
  "best/test/accuracy": "test accuracy of the best checkpoint",
  "best/test/loss": "test loss of the best checkpoint (nats)",
  "corruption_error": "error over 15 corruptions",
  "corruption_error_without_frost": "error over 14 corruptions, without frost",
}
_DRAWN = ("test/accuracy", "test/loss")
CONFIGURED = "plain_configured"
CONTROLS = ("plain", "more_decay", "label_smoothing", "augmented")
METHODS = ("sam", "obf", "obf_gamma0")
_BEST = "best checkpoint of "
_SEVERITIES = 5

Runs = Mapping[str, Mapping[int, Mapping[str, str]]]


class Claim(NamedTuple):
  """A hypothesis: that one method is better than another.

  Attributes:
    name: the hypothesis's number; empty for a difference outside of the plan.
    better: a method.
    worse: another; with `best checkpoint of`, that checkpoint's score.
  """

  name: str
  better: str
  worse: str


CLAIMS = (
  *(
    Claim("1", method, control)
    for method in METHODS
    for control in ("plain", f"{_BEST}plain", *CONTROLS[1:])
  ),
  *(Claim("2", obf, "sam") for obf in ("obf_gamma0", "obf")),
  Claim("3", "gsam_obf", "gsam"),
  Claim("3", "asam_obf", "asam"),
  Claim("4", "random", "plain"),
  *(Claim("", method, "random") for method in METHODS),
  *(
    Claim("", method, control)
    for control in (CONFIGURED, f"{_BEST}{CONFIGURED}")
    for method in (*METHODS, "random", "plain")
  ),
)


def read_runs(runs: Path, arm: str) -> dict[str, dict[int, dict[str, str]]]:
  """The arm's tested runs, by method and seed.

  Raises:
    SystemExit: the arm is not reported yet.
  """
  found: dict[str, dict[int, dict[str, str]]] = {}
  for part in ("", "_more", "_configured"):
    path = runs / "report" / f"{arm}{part}" / "runs.csv"
    if not part and not path.exists():
      raise SystemExit(f"RUNS={runs} has no {path}: run report_{arm} first")
    if path.exists():
      with path.open() as file:
        for row in csv.DictReader(file):
          if part == "_configured":
            row["variant"] = CONFIGURED
          mine = _with_corruptions(row)
          found.setdefault(row["variant"], {})[int(row["seed"])] = mine
  if CONFIGURED in found:
    found[CONFIGURED] = found.pop(CONFIGURED)  # beside the others: last
  return found


def _with_corruptions(row: Mapping[str, str]) -> dict[str, str]:
  """A run with its mean errors in place of each corrupted set's scores."""
  named = ("train/", "validation/", "test/", "best/test/")
  kept = {k: v for k, v in row.items() if "/" not in k or k.startswith(named)}
  groups = {
    int(key.rpartition("/")[2]): float(value)
    for key, value in row.items()
    if key.startswith("last/") and "/group_accuracy/" in key and value
  }
  if groups:
    frost = [*CORRUPTIONS].index("frost")
    others = [a for g, a in groups.items() if g // _SEVERITIES != frost]
    for name, accuracies in (
      ("corruption_error", [*groups.values()]),
      ("corruption_error_without_frost", others),
    ):
      kept[name] = repr(1 - float(np.mean(accuracies)))
  return kept


def records(runs: Runs) -> dict[str, list[Record]]:
  """The runs as a sweep has them; methods that lack a seed are an error."""
  seeds = {name: sorted(mine) for name, mine in runs.items()}
  (first, *_) = seeds.values()
  if unlike := [name for name, mine in seeds.items() if mine != first]:
    raise SystemExit(f"seeds of {unlike} are not {first}: finish the report")
  return {
    name: [_record(mine[seed]) for seed in first] for name, mine in runs.items()
  }


def _record(row: Mapping[str, str]) -> Record:
  metrics = {name: float(row[name]) for name in SCORES if row.get(name)}
  diverged = int(row["diverged_at"]) if row["diverged_at"] else None
  return Record(metrics, diverged, float(row["seconds"]))


class Tested(NamedTuple):
  """A claim, the paired difference in test accuracy, and its p-value."""

  claim: Claim
  difference: Difference
  p_value: float


def tests(found: Mapping[str, list[Record]]) -> Iterator[Tested]:
  """Student's paired test of every claim about methods that are there."""
  for claim in CLAIMS:
    worse = claim.worse.removeprefix(_BEST)
    if not {claim.better, worse} <= set(found):
      continue
    score = "best/test/accuracy" if worse != claim.worse else "test/accuracy"
    mine = [record.value("test/accuracy") for record in found[claim.better]]
    theirs = [record.value(score) for record in found[worse]]
    a, b = ([v for v in values if v is not None] for values in (mine, theirs))
    if len(a) == len(b) == len(mine):
      yield Tested(claim, paired_difference(a, b), paired_p_value(a, b))


def hypotheses(found: Mapping[str, list[Record]]) -> str:
  """The table of tests; Holm's p belongs to the numbered ones together."""
  tested = list(tests(found))
  planned = [t.p_value if t.claim.name else np.nan for t in tested]
  header = ["difference", "hypothesis", "test accuracy (points)", "Holm p"]
  rows = [
    [
      f"{claim.better} - {claim.worse}",
      claim.name,
      interval_text(*(100 * x if x is not None else None for x in d), digits=1),
      "" if np.isnan(p) else f"{p:.2g}",
    ]
    for (claim, d, _), p in zip(tested, holm_p_values(planned), strict=True)
  ]
  return markdown_table(header, rows)


def write(runs: Path, arm: str, docs: Path) -> None:
  """Writes what the arm's runs give."""
  rows = read_runs(runs, arm)
  found = records(rows)
  several = [row for mine in rows.values() for row in mine.values()]
  write_runs(docs / "runs.csv", several)
  scores = {
    name: title
    for name, title in SCORES.items()
    if all(name in r.metrics for rs in found.values() for r in rs if r.metrics)
  }
  tables = {name: compare(found, name) for name in scores}
  text = "\n".join(
    comparison_markdown(title, tables[name]) for name, title in scores.items()
  )
  (docs / "comparison.md").write_text(text)
  (docs / "comparison.csv").write_text(comparison_csv(tables))
  (docs / "hypotheses.md").write_text(hypotheses(found))
  panels = {scores[name]: tables[name] for name in _DRAWN}
  draw_comparison(docs / "comparison.png", panels)


def main() -> None:
  """Reads the command line."""
  runs, arm, docs = read_arguments("noisy_methods", __doc__, "runs", "arm")
  write(Path(runs), arm, Path(docs))


if __name__ == "__main__":
  main()
