"""The tables' numbers, by hand."""

import csv
import io
from pathlib import Path

import matplotlib.image
import pytest
from sweep_runs import made_up

from forgetsam.experiment.sweep import compare
from forgetsam.experiment.sweep._comparison import (
  comparison_csv,
  comparison_markdown,
  draw_comparison,
)

# Differences obf - plain: 2, 4, 3 points; their mean 3, error 1 / sqrt(3), and
# t of 2 degrees of freedom at 97.5 % is 4.302653.
RECORDS = {
  "plain": [made_up(0.70, 1.0), made_up(0.72, 1.2), made_up(0.74, 1.4)],
  "obf": [made_up(0.72, 0.9), made_up(0.76, 1.1), made_up(0.77, 1.3)],
}


def test_the_markdown_table_by_hand():
  table = comparison_markdown("accuracy", compare(RECORDS, "test/accuracy"))
  assert table.splitlines() == [
    "| variant | accuracy | minus plain | runs |",
    "| --- | ---: | ---: | ---: |",
    "| plain | 0.7200 ± 0.0115 |  | 3 |",
    "| obf | 0.7500 ± 0.0153 | +0.0300 [+0.0052, +0.0548] | 3 |",
  ]


def test_the_csv_table_by_hand():
  tables = {m: compare(RECORDS, m) for m in ("test/accuracy", "test/loss")}
  rows = list(csv.DictReader(io.StringIO(comparison_csv(tables))))
  assert [(r["metric"], r["variant"]) for r in rows] == [
    ("test/accuracy", "plain"),
    ("test/accuracy", "obf"),
    ("test/loss", "plain"),
    ("test/loss", "obf"),
  ]
  reach = 4.302653 * 0.01 / 3**0.5
  assert float(rows[1]["mean"]) == pytest.approx(0.75)
  assert float(rows[1]["minus_plain"]) == pytest.approx(0.03)
  assert float(rows[1]["minus_plain_low"]) == pytest.approx(0.03 - reach)
  assert float(rows[1]["minus_plain_high"]) == pytest.approx(0.03 + reach)
  assert rows[0]["minus_plain"] == ""
  assert float(rows[3]["minus_plain"]) == pytest.approx(-0.1)
  assert rows[3]["runs"] == "3"


def test_both_baselines_where_both_are_there():
  records = RECORDS | {"sam": [made_up(0.71), made_up(0.75), made_up(0.76)]}
  rows = {row.variant: row for row in compare(records, "test/accuracy")}
  assert set(rows["obf"].against) == {"plain", "sam"}
  against_sam = rows["obf"].against["sam"]
  assert against_sam is not None
  assert against_sam.mean == pytest.approx(0.01)
  assert rows["sam"].against["sam"] is None


def test_a_diverged_run_shows_and_takes_no_part_in_a_mean():
  records = RECORDS | {"sam": [made_up(0.9), made_up(None), made_up(0.9)]}
  rows = compare(records, "test/accuracy")
  assert rows[2].mean is None
  assert rows[2].diverged == 1
  assert rows[1].against["sam"] is None
  table = comparison_markdown("accuracy", rows)
  assert "| sam | diverged | diverged |  | 3, of which 1 diverged |" in table
  assert "[+0.0052, +0.0548] | diverged | 3 |" in table
  assert "sam,3,1,,," in comparison_csv({"test/accuracy": rows})


def test_the_picture_is_drawn(tmp_path: Path):
  path = tmp_path / "comparison.png"
  records = RECORDS | {"sam": [made_up(0.7), made_up(None), made_up(0.8)]}
  draw_comparison(path, {"accuracy": compare(records, "test/accuracy")})
  pixels = matplotlib.image.imread(path)
  assert pixels.shape[0] > 200
  assert pixels[..., :3].std() > 0.05  # not an empty canvas
