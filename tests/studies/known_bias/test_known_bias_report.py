"""Tables of made-up runs whose numbers are known."""

import math

import pytest

from forgetsam.studies.known_bias import report

PLAIN, SAM = ("plain", 128, 0.2, 0.0), ("sam", 32, 0.2, 0.1)


def run(key, seed, value, **extra):
  names = ("method", "micro_batch_size", "weight_decay", "rho")
  metrics = dict.fromkeys(report.METRICS, value)
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
  return report.group(sam[::-1] + plain)


def test_differences_are_paired_by_seed(groups):
  found = report.cell(groups[SAM], "test_random/accuracy", groups[PLAIN])
  assert found.mean.mean == pytest.approx(0.7)
  assert found.mean.standard_error == pytest.approx(0.1 / math.sqrt(3))
  # Differences 0.1, 0.2, 0.0; Student's t with two degrees of freedom is 4.303.
  assert found.minus_plain.mean == pytest.approx(0.1)
  reach = 4.302653 * 0.1 / math.sqrt(3)
  assert found.minus_plain.low == pytest.approx(0.1 - reach, rel=1e-5)
  assert found.minus_plain.high == pytest.approx(0.1 + reach, rel=1e-5)


def test_markdown(groups):
  metric = "test_random/accuracy"
  found = report.cell(groups[SAM], metric, groups[PLAIN])
  assert (
    report.markdown_cell(found, percent=True) == "70.0 (+10.0 [-14.8, +34.8])"
  )
  alone = report.cell(groups[PLAIN], metric, None)
  assert report.markdown_cell(alone, percent=False) == "0.600"


def test_a_diverged_run_leaves_no_mean(groups):
  groups[SAM][1] = {**groups[SAM][1], "diverged": True}
  found = report.cell(groups[SAM], "test/accuracy", groups[PLAIN])
  assert found == report.Cell(None, None)
  assert report.markdown_cell(found, percent=True) == "diverged"


def test_networks_below_nine_tenths_have_collapsed(groups):
  assert report.collapsed(groups[SAM])
  assert not report.collapsed({s: run(SAM, s, 0.89 + 0.03 * s) for s in (0, 1)})
  assert report.collapsed({0: run(SAM, 0, 0.95, diverged=True)})


def test_no_difference_without_plain_of_the_same_seeds(groups):
  groups[SAM][9] = run(SAM, 9, 0.5)
  found = report.cell(groups[SAM], "test/accuracy", groups[PLAIN])
  assert found.minus_plain is None
  assert found.mean.mean == pytest.approx(0.65)


def test_table_has_a_row_for_each_condition_and_metric(groups):
  header, *rows = report.table(
    groups, ["test/accuracy", "influence/ratio"], PLAIN
  )
  assert len(rows) == 4
  assert all(len(row) == len(header) for row in rows)
  by_name = [dict(zip(header, row, strict=True)) for row in rows]
  sam, plain = by_name[0], by_name[2]
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

  (found,) = report.average_effects([row(0, -0.1, -0.4), row(1, -0.3, -0.4)])
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
  curve = report.group([run(PLAIN, s, 0.5 + 0.1 * s) for s in range(2)] + extra)
  report.draw_curves(tmp_path / "curve.png", curve, PLAIN, [PLAIN, SAM])
  effects = report.average_effects(
    [
      run(key, seed, 0.0, epoch=1) | dict.fromkeys(report.EFFECTS, 0.1 * seed)
      for key in curve
      for seed in range(2)
    ]
  )
  report.draw_steps(tmp_path / "steps.png", effects, curve, 128)
  for name in ("curve.png", "steps.png"):
    assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
