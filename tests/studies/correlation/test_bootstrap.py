"""Resampling keeps settings together; Holm's p-values are the textbook's."""

import numpy as np
import pytest

from forgetsam.studies.correlation import (
  Interval,
  Query,
  associate,
  bootstrap_intervals,
  cluster_counts,
  holm,
)


def test_clusters_come_whole():
  clusters = np.array(["a", "b", "a", "c", "b", "a"])
  counts = cluster_counts(clusters, resamples=50, seed=0)
  for name in "abc":
    own = counts[:, clusters == name]
    assert (own == own[:, :1]).all()
  first = [list(clusters).index(name) for name in "abc"]
  assert (counts[:, first].sum(axis=1) == 3).all()
  assert len(np.unique(counts, axis=0)) > 5


def test_the_interval_of_a_mean_is_the_textbooks():
  x = np.random.default_rng(0).normal(size=200)
  (found,) = bootstrap_intervals(
    lambda w: np.array([np.average(x, weights=w)]),
    np.arange(200),
    resamples=4000,
  )
  error = np.std(x) / np.sqrt(200)
  assert found.value == pytest.approx(x.mean())
  assert found.standard_error == pytest.approx(error, rel=0.05)
  assert found.low == pytest.approx(x.mean() - 1.96 * error, abs=0.15 * error)
  assert found.high == pytest.approx(x.mean() + 1.96 * error, abs=0.15 * error)


def test_copies_within_a_cluster_add_nothing():
  rng = np.random.default_rng(1)
  x, y = rng.normal(size=(2, 25))
  once = {"setting": np.arange(25), "x": x, "y": x + y}
  twice = {name: np.concatenate([c, c]) for name, c in once.items()}
  apart = twice | {"setting": np.arange(50)}
  one, two, wrong = (
    associate(rows, [Query("x", "y")], resamples=300)[0]
    for rows in (once, twice, apart)
  )
  assert two == pytest.approx(one, abs=1e-6)
  assert wrong.standard_error < 0.85 * one.standard_error


def test_the_level_is_that_of_the_interval():
  x = np.random.default_rng(0).normal(size=100)
  narrow, wide = (
    bootstrap_intervals(
      lambda w: np.array([np.average(x, weights=w)]),
      np.arange(100),
      level=level,
    )[0]
    for level in (0.5, 0.95)
  )
  ratio = (wide.high - wide.low) / (narrow.high - narrow.low)
  assert ratio == pytest.approx(1.96 / 0.674, rel=0.1)


def test_a_statistic_that_is_mostly_undefined_has_no_interval():
  (found,) = bootstrap_intervals(
    lambda w: np.array([1.0 if w.max() == 1 else np.nan]), np.arange(10)
  )
  assert found.value == 1.0
  assert np.isnan(found.low)


@pytest.mark.parametrize("kind", ["kendall", "spearman"])
def test_associations_know_an_exact_order(kind: str):
  rows = {"setting": np.arange(12), "a": np.arange(12.0)}
  rows["b"], rows["c"] = -(rows["a"] ** 3), np.array([0.0, 1] * 6)
  found = associate(
    rows, [Query("a", "b"), Query("b", "a"), Query("a", "c")], kind=kind,
    resamples=50,
  )  # fmt: skip
  assert found[0][:3] == pytest.approx((-1, -1, -1))
  assert found[1][:3] == pytest.approx((-1, -1, -1))
  assert found[2].low < 0.2 < found[2].high


def test_associations_refuse_what_they_cannot_rank():
  rows = {"setting": np.arange(3), "a": np.arange(3.0)}
  rows["b"] = np.array([0.0, np.nan, 1.0])
  with pytest.raises(ValueError, match="'b' must be finite"):
    associate(rows, [Query("a", "b")])
  with pytest.raises(ValueError, match="kind='pearson' must be"):
    associate(rows, [Query("a", "a")], kind="pearson")


def test_holm_is_the_step_down_procedure():
  # Two-sided normal p-values of these scores: .01, .04, .03, .005.
  scores = [2.575829, 2.053749, 2.170090, 2.807034]
  adjusted = holm([Interval(s, 0, 0, 1.0) for s in scores])
  # sorted .005 x 4, .01 x 3, .03 x 2, .04 x 1 and never falling.
  assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02], rel=1e-4)


def test_holm_reads_size_and_error_and_skips_the_undefined():
  nan = float("nan")
  adjusted = holm([Interval(-0.4, 0, 0, 0.2), Interval(nan, nan, nan, nan)])
  assert adjusted[0] == pytest.approx(0.0455, rel=1e-3)
  assert np.isnan(adjusted[1])
  assert holm([Interval(0.1, 0, 0, 1.0)] * 3) == [1.0] * 3
  assert holm([Interval(1.0, 1, 1, 0.0)]) == [0.0]
