"""The report says what is in the table."""

from pathlib import Path

import numpy as np
import pytest
from tiny_study import made_up_networks

from forgetsam.studies.correlation import (
  Interval,
  Networks,
  Query,
  associate,
  choose,
  kendall_matrix,
  label,
  plot_associations,
  plot_networks,
  report_arm,
  write_report,
)
from forgetsam.studies.correlation._arm_tables import arm_tables
from forgetsam.studies.correlation._names import (
  FORGETTING,
  GIVEN,
  GIVEN_ALL,
  MEASURES,
  SHARPNESS,
  SHORT,
)
from forgetsam.studies.correlation._report import number, p_value

pytestmark = pytest.mark.slow

BEST = "obf_probe_conditional_train"


@pytest.fixture(scope="module")
def networks() -> Networks:
  return made_up_networks()


@pytest.fixture(scope="module")
def tables(networks: Networks):
  return arm_tables(choose(networks, ~networks["diverged"]), resamples=60)


def test_the_best_measure_is_found(tables):
  one = tables.targets["test_accuracy"]
  i = MEASURES.index(BEST)
  assert one.tau[i].value == pytest.approx(1)
  assert one.spearman[i].value == pytest.approx(1)
  assert one.given_loss[i].value == pytest.approx(1)
  assert one.holm[i] < 0.001
  assert one.granulated[i]["Psi"] == pytest.approx(1)
  assert one.independence[i].score == pytest.approx(1)
  assert tables.targets["test_loss"].tau[i].value == pytest.approx(-1)
  others = [abs(t.value) for j, t in enumerate(one.tau) if j != i]
  assert max(others) < 0.5


def test_controls_are_no_candidates(tables):
  for name in GIVEN:
    i = MEASURES.index(name)
    assert np.isnan(tables.targets["test_accuracy"].given_both[i].value)
    assert np.isnan(tables.targets["test_accuracy"].holm[i])


def test_each_control_is_the_one_named(networks: Networks, tables):
  rows = choose(networks, ~networks["diverged"])
  one, i = tables.targets["accuracy_gap"], MEASURES.index("trace")
  for given, found in (
    (("train_loss",), one.given_loss),
    (("own_length",), one.given_radius),
    (("train_loss", "own_length"), one.given_both),
    (GIVEN_ALL, one.given_all),
  ):
    (expected,) = associate(
      rows, [Query("trace", "accuracy_gap", given)], resamples=60
    )
    assert found[i].value == pytest.approx(expected.value)


def test_all_pairs_of_forgetting_and_sharpness(tables, networks: Networks):
  assert len(tables.sharpness) == len(FORGETTING) * len(SHARPNESS)
  rows = choose(networks, ~networks["diverged"])
  i, j = 3, 2
  pair = np.stack([rows[FORGETTING[i]], rows[SHARPNESS[j]]], axis=1)
  assert tables.sharpness[i * len(SHARPNESS) + j].value == pytest.approx(
    kendall_matrix(pair)[0, 1], abs=1e-6
  )


def test_thirds_are_of_the_training_loss(tables, networks: Networks):
  rows = choose(networks, ~networks["diverged"])
  low, high = np.quantile(rows["train_loss"], [1 / 3, 2 / 3])
  middle = choose(
    rows, (rows["train_loss"] > low) & (rows["train_loss"] <= high)
  )
  (expected,) = associate(
    middle, [Query("lambda_max", "test_accuracy")], resamples=60
  )
  names = list(tables.thirds)
  assert [name.split(",")[0] for name in names] == ["low", "middle", "high"]
  found = tables.thirds[names[1]][SHORT.index("lambda_max")]
  assert found.value == pytest.approx(expected.value)


def test_along_training_ends_at_the_end(tables):
  assert tables.epochs == [1, 10, 30]
  last = tables.along[BEST]
  assert last[-1].value == pytest.approx(1)
  assert abs(last[0].value) < 0.5


def test_the_ceiling_compares_seeds(networks: Networks):
  from forgetsam.studies.correlation._arm_tables import _ceiling

  rows = choose(networks, ~networks["diverged"])
  again = rows | {
    "test_accuracy": np.array([float(s[1:]) for s in rows["setting"]])
  }
  assert _ceiling(again) == pytest.approx(1)
  assert np.isnan(_ceiling(choose(rows, rows["seed"] == 0)))


def test_the_report_counts_and_draws(networks: Networks, tmp_path: Path):
  write_report(networks, tmp_path, resamples=20)
  text = (tmp_path / "report.md").read_text()
  assert "40 networks of 20 settings, 1 diverged" in text
  assert "0.10 hours" in text
  assert f"counts the {len(MEASURES) - len(GIVEN)} measures" in text
  rows = [line for line in text.splitlines() if line.startswith("| OBF probe")]
  assert any("+1.00 [+1.00, +1.00]" in row for row in rows)
  columns = {
    line.replace("\\|", "").count("|")
    for line in text.split("## Test loss")[0].splitlines()
    if line.startswith("|") and "plain" not in line and "obf |" not in line
  }
  assert len(columns) <= 2  # the methods' table, and the measures'
  for name in ("networks", "correlations", "sharpness", "along_training"):
    assert f"noisy_{name}.png" in text
    assert (tmp_path / f"noisy_{name}.png").stat().st_size > 5000


def test_pictures_label_their_axes(networks: Networks):
  _, figures = report_arm(networks, resamples=20)
  panels = [axis for axis in figures["networks"].axes if axis.get_visible()]
  assert len(panels) == 6
  assert all(axis.get_xlabel() for axis in panels)
  assert panels[0].get_ylabel() == "test accuracy"
  (axis,) = figures["along_training"].axes
  assert "epoch" in axis.get_xlabel()
  assert "test accuracy" in axis.get_ylabel()


def test_intervals_are_drawn_where_they_are():
  figure = plot_associations(
    ["trace", "train_loss"],
    {"alone": [Interval(0.5, 0.2, 0.6, 0.1), Interval(-0.1, -0.3, 0.4, 0.1)]},
    "tau",
  )
  (axis,) = figure.axes
  (container,) = axis.containers
  segments = container[2][0].get_segments()
  assert [list(s[:, 0]) for s in segments] == [
    pytest.approx([0.2, 0.6]),
    pytest.approx([-0.3, 0.4]),
  ]
  assert [t.get_text() for t in axis.get_yticklabels()] == [
    "Hessian trace",
    "training loss",
  ]


def test_a_network_far_away_does_not_squeeze_the_others(networks: Networks):
  rows = choose(networks, ~networks["diverged"])
  rows["test_accuracy"] = rows["test_accuracy"].copy()
  rows["test_accuracy"][0] = 0.1
  (panel,) = plot_networks(rows, ["trace"], "test_accuracy").axes
  assert panel.get_ylim()[0] > 0.7
  assert panel.texts[0].get_text() == "1 outside"
  rows["test_accuracy"][0] = 0.8
  (panel,) = plot_networks(rows, ["trace"], "test_accuracy").axes
  assert not panel.texts


def test_numbers_are_written_with_what_is_known():
  nan = float("nan")
  assert number(Interval(0.123, -0.05, 0.3, 0.1)) == "+0.12 [-0.05, +0.30]"
  assert number(Interval(0.123, nan, nan, nan)) == "+0.12"
  assert number(Interval(nan, nan, nan, nan)) == "n/a"
  assert [p_value(p) for p in (0.0004, 0.0312, nan)] == [
    "< .001",
    "0.031",
    "n/a",
  ]


def test_labels_are_for_readers():
  assert label("sam_probe_conditional_held_out@3") == (
    "SAM probe, I(X;Ŷ|Y), held out, epoch 3"
  )
  assert all(label(name) != name for name in MEASURES)
