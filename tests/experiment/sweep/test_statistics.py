"""Means, errors and intervals against numbers worked out otherwise."""

import math

import pytest
from scipy import stats

from forgetsam.experiment.sweep import mean_over_runs, paired_difference

MINE = [0.81, 0.84, 0.79, 0.86, 0.80]
THEIRS = [0.80, 0.81, 0.80, 0.82, 0.78]


def test_a_mean_and_its_error_by_hand():
  # Deviations -1, 0, 1, 2, -2 about 3: squares sum to 10; 10 / (5 * 4) = 1/2.
  found = mean_over_runs([2.0, 3.0, 4.0, 5.0, 1.0])
  assert found.mean == 3.0
  assert found.standard_error == pytest.approx(math.sqrt(0.5))


def test_a_paired_interval_is_scipy_s():
  found = paired_difference(MINE, THEIRS)
  reference = stats.ttest_rel(MINE, THEIRS).confidence_interval(0.95)
  assert found.mean == pytest.approx(0.018)
  assert found.low == pytest.approx(reference.low)
  assert found.high == pytest.approx(reference.high)


def test_another_level_is_scipy_s():
  found = paired_difference(MINE, THEIRS, level=0.8)
  reference = stats.ttest_rel(MINE, THEIRS).confidence_interval(0.8)
  assert found.low == pytest.approx(reference.low)


def test_one_run_has_no_error():
  assert mean_over_runs([0.5]) == (0.5, None)
  assert paired_difference([0.5], [0.25]) == (0.25, None, None)


def test_unequal_numbers_of_runs_are_an_error():
  with pytest.raises(
    ValueError, match=r"values has 1 .* baseline 2: .* each seed"
  ):
    paired_difference([0.5], [0.25, 0.5])
