"""The page that gathers all settings has what their own pages have."""

import csv
from pathlib import Path

import pytest

from scripts import obf_or_sam

FOUND = obf_or_sam.rows()


def test_the_page_has_the_table_of_the_runs():
  assert obf_or_sam.table(FOUND) in obf_or_sam.PAGE.read_text()
  assert obf_or_sam.PICTURE.is_file()


def test_a_row_is_what_the_comparison_says():
  (row,) = [r for r in FOUND if r.title.startswith("Fashion-MNIST, 20")]
  with (obf_or_sam.DOCS / "fashion_2k/noisy/comparison.csv").open() as file:
    (said,) = [
      r
      for r in csv.DictReader(file)
      if (r["metric"], r["variant"]) == ("test/accuracy", "obf")
    ]
  for name, difference in [("plain", 1), ("sam", 2)]:
    found = row.differences[difference]
    ends = [f"minus_{name}", f"minus_{name}_low", f"minus_{name}_high"]
    assert found == pytest.approx([100 * float(said[e]) for e in ends])
  assert row.runs == 15


def test_the_best_m_is_that_of_validation():
  with (obf_or_sam.DOCS / "noisy_cifar10/m/choices.csv").open() as file:
    rows = list(csv.DictReader(file))
  best = {}
  for row in sorted(rows, key=lambda row: float(row["validation_accuracy"])):
    best[row["method"]] = f"{row['method']},{row['m']}"
  for setting in obf_or_sam.SETTINGS:
    if setting.column == "method,m":
      assert all(best[name.split(",")[0]] == name for name in setting.methods)


def test_the_picture_is_drawn(tmp_path: Path):
  obf_or_sam.draw(FOUND, tmp_path / "differences.png")
  assert (tmp_path / "differences.png").stat().st_size > 1000
