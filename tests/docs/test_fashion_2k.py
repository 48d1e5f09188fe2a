"""What the first comparison's page says of runs that came later is theirs."""

import csv
from pathlib import Path

from forgetsam.experiment.sweep import paired_difference

DOCS = Path(__file__).resolve().parents[2] / "docs/fashion_2k"


def accuracies(path: Path, variant: str) -> list[float]:
  with path.open() as file:
    rows = [r for r in csv.DictReader(file) if r["variant"] == variant]
  rows.sort(key=lambda row: int(row["seed"]))
  assert [int(row["seed"]) for row in rows] == [*range(5, 20)]
  return [100 * float(row["test/accuracy"]) for row in rows]


def test_random_directions_at_wider_radii():
  text = " ".join((DOCS / "README.md").read_text().split())
  runs = DOCS / "noisy/runs.csv"
  random = accuracies(DOCS / "noisy/random_wider/runs.csv", "random")
  mean, low, high = paired_difference(random, accuracies(runs, "plain"))
  assert (
    f"level with plain training, {mean:+.1f} [{low:.1f}, {high:.1f}]" in text
  )
  mean, low, high = paired_difference(accuracies(runs, "sam"), random)
  assert f"{mean:.1f} [{low:.1f}, {high:.1f}] below SAM" in text
