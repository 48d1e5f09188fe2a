"""The tables of accuracy against cost: from made-up and from committed runs."""

import csv
import json
import re

import pytest
from markdown_pages import ROOT

from benchmarks.pareto import Point, beaten_by, table

BENCHMARKS = ROOT / "benchmarks"


def test_beaten_is_by_the_first_cheaper_one_whose_interval_is_above_zero():
  point = Point([0.5, 0.6, 0.7], cost=3)
  by_chance = Point([0.7, 0.5, 0.7], cost=1)  # ahead, but not in every seed
  cheaper = {
    "level": point,
    "by_chance": by_chance,
    "ahead": Point([0.6, 0.71, 0.79], cost=2),
    "farther": Point([0.9, 1, 1.1], cost=2.5),
  }
  assert beaten_by(point, cheaper) == "ahead"
  assert beaten_by(point, {"by_chance": by_chance}) == ""
  assert beaten_by(point, {}) == ""


def test_shares_are_of_the_larger_full_gain_and_rows_are_by_cost():
  points = {
    "obf": Point([0.7, 0.7], cost=2),
    "plain": Point([0.5, 0.5], cost=1),
    "sam": Point([0.9, 0.9], cost=3),
  }
  chosen = {
    name: {"overrides": {"perturbation.rho": 0.1, "seed": 2}} for name in points
  }
  rows = [line.split(" | ") for line in table(points, chosen).splitlines()[2:]]
  assert [row[0].strip("| ") for row in rows] == ["plain", "obf", "sam"]
  assert [row[4] for row in rows] == ["0%", "50%", "100%"]
  assert rows[0][6].strip("| ") == "rho 0.1, seed 2"


@pytest.mark.parametrize(
  ("mark", "runs", "best"),
  [("pareto.md", "runs", "best"), ("zoo", "zoo_runs", "zoo_best")],
)
def test_the_committed_tables_are_those_of_the_committed_runs(mark, runs, best):
  page = (BENCHMARKS / "README.md").read_text()
  found = re.search(rf"<!-- {mark} -->\n(.*?)<!-- end -->", page, re.DOTALL)
  assert found
  accuracies = dict[str, list[float]]()
  with (BENCHMARKS / "pareto" / f"{runs}.csv").open() as file:
    for row in csv.DictReader(file):
      accuracies.setdefault(row["variant"], []).append(
        float(row["test/accuracy"])
      )
  points = {}
  for line in found[1].splitlines()[2:]:
    name, cost = line.strip("| ").split(" | ")[:2]
    points[name] = Point(accuracies[name], float(cost))
  assert set(points) == set(accuracies)
  chosen = json.loads((BENCHMARKS / "pareto" / f"{best}.json").read_text())
  assert table(points, chosen) == found[1]
