"""Tables of made-up runs whose numbers are known, and the committed ones."""

import csv
import math
from pathlib import Path

import pytest

from forgetsam.studies import known_bias as kb

PLAIN, SAM = ("plain", 128, 0.2, 0.0), ("sam", 32, 0.2, 0.1)


def run(key, seed, value, **extra):
  names = ("method", "micro_batch_size", "weight_decay", "rho")
  metrics = dict.fromkeys(kb.METRICS, value)
  return {
    **dict(zip(names, key, strict=True)),
    "seed": seed,
    **metrics,
    **extra,
  }


@pytest.fixture
def groups():
  plain = [
    run(PLAIN, seed, value) for seed, value in enumerate([0.5, 0.6, 0.7])
  ]
  sam = [run(SAM, seed, value) for seed, value in enumerate([0.6, 0.8, 0.7])]
  return kb.group_runs(sam[::-1] + plain)


def test_differences_are_paired_by_seed(groups):
  found = kb.cell(groups[SAM], "test_random/accuracy", groups[PLAIN])
  assert found.mean.mean == pytest.approx(0.7)
  assert found.mean.standard_error == pytest.approx(0.1 / math.sqrt(3))
  # Differences 0.1, 0.2, 0.0; Student's t with two degrees of freedom is 4.303.
  assert found.minus_plain.mean == pytest.approx(0.1)
  reach = 4.302653 * 0.1 / math.sqrt(3)
  assert found.minus_plain.low == pytest.approx(0.1 - reach, rel=1e-5)
  assert found.minus_plain.high == pytest.approx(0.1 + reach, rel=1e-5)


def test_markdown(groups):
  metric = "test_random/accuracy"
  found = kb.cell(groups[SAM], metric, groups[PLAIN])
  assert kb.markdown_cell(found, percent=True) == "70.0 (+10.0 [-14.8, +34.8])"
  alone = kb.cell(groups[PLAIN], metric, None)
  assert kb.markdown_cell(alone, percent=False) == "0.600"


def test_a_diverged_run_leaves_no_mean(groups):
  groups[SAM][1] = {**groups[SAM][1], "diverged": True}
  found = kb.cell(groups[SAM], "test/accuracy", groups[PLAIN])
  assert found == kb.Cell(None, None)
  assert kb.markdown_cell(found, percent=True) == "diverged"


def test_networks_below_nine_tenths_have_collapsed(groups):
  assert kb.collapsed(groups[SAM])
  assert not kb.collapsed({s: run(SAM, s, 0.89 + 0.03 * s) for s in (0, 1)})
  assert kb.collapsed({0: run(SAM, 0, 0.95, diverged=True)})


def test_no_difference_without_plain_of_the_same_seeds(groups):
  groups[SAM][9] = run(SAM, 9, 0.5)
  found = kb.cell(groups[SAM], "test/accuracy", groups[PLAIN])
  assert found.minus_plain is None
  assert found.mean.mean == pytest.approx(0.65)


def test_table_has_a_row_for_each_condition_and_metric(groups):
  header, *rows = kb.condition_rows(groups, PLAIN)
  assert len(rows) == 2 * len(kb.METRICS)
  assert all(len(row) == len(header) for row in rows)
  by_name = [dict(zip(header, row, strict=True)) for row in rows]
  sam, plain = by_name[0], by_name[len(kb.METRICS)]
  assert (sam["method"], sam["m"], sam["runs"]) == ("sam", 32, 3)
  assert sam["minus_plain"] == pytest.approx(0.1)
  assert plain["method"] == "plain"
  assert plain["minus_plain"] is None


def test_balances_are_averaged_over_networks():
  def row(seed, patch, content):
    effects = {
      "forgotten_patch": patch,
      "forgotten_content": content,
      "learned_patch": content,
      "learned_content": patch,
    }
    return run(SAM, seed, 0.0, epoch=3, **effects)

  (found,) = kb.average_effects([row(0, -0.1, -0.4), row(1, -0.3, -0.4)])
  assert (found["method"], found["epoch"]) == ("sam", 3)
  assert found["forgotten_patch"] == pytest.approx(-0.2)
  assert found["forgotten_balance"] == pytest.approx(0.2)
  assert found["forgotten_balance_se"] == pytest.approx(0.1)
  assert found["learned_balance"] == pytest.approx(-0.2)


def test_pictures_have_labelled_axes(groups, tmp_path):
  extra = [
    run((method, m, 0.2, rho), seed, 0.97 - 4 * rho**2 + 0.01 * seed)
    for method in ("sam", "obf_gamma0", "obf_gamma1", "random")
    for m in (128, 32)
    for rho in (0.1, 0.2)
    for seed in range(2)
  ]
  curve = kb.group_runs(
    [run(PLAIN, s, 0.5 + 0.1 * s) for s in range(2)] + extra
  )
  kb.draw_curves(tmp_path / "curve.png", curve, PLAIN, [PLAIN, SAM])
  effects = kb.average_effects(
    [
      run(key, seed, 0.0, epoch=1) | dict.fromkeys(kb.EFFECTS, 0.1 * seed)
      for key in curve
      for seed in range(2)
    ]
  )
  kb.draw_steps(tmp_path / "steps.png", effects, curve, 128)
  for name in ("curve.png", "steps.png"):
    assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


DOCS = Path(__file__).resolve().parents[3] / "docs" / "known_bias"


def read_csv(name):
  def number(text):
    try:
      return float(text)
    except ValueError:
      return text or None

  with (DOCS / name).open(newline="") as file:
    rows = [{k: number(v) for k, v in r.items()} for r in csv.DictReader(file)]
  whole = ("micro_batch_size", "seed", "epoch")
  return [
    {k: int(v) if k in whole else v for k, v in row.items()} for row in rows
  ]


def test_the_committed_runs_give_the_committed_tables():
  runs = [
    {**run, "diverged": run["test/accuracy"] is None}
    for run in read_csv("runs.csv")
  ]
  found = kb.markdown_tables(runs, read_csv("one_step.csv")).split("\n\n")
  committed = (DOCS / "tables.md").read_text().split("\n\n")
  assert found[:2] == committed[:2]
  # A rank correlation moves by a pair where six digits make a tie.
  for new, old in zip(
    found[2].split("|"), committed[2].split("|"), strict=True
  ):
    try:
      assert float(new) == pytest.approx(float(old), abs=0.0201)
    except ValueError:
      assert new == old
  page = (DOCS / "README.md").read_text()
  for table in committed:
    _, *rows = table.splitlines()  # the page has shorter headers
    assert all(row in page for row in rows)
