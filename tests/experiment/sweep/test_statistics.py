"""Means, errors and intervals against numbers worked out otherwise."""

import math
from collections.abc import Callable

import pytest
from scipy import stats

from forgetsam.experiment.sweep import (
  holm_p_values,
  mean_over_runs,
  paired_difference,
  paired_p_value,
)

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


@pytest.mark.parametrize("compared", [paired_difference, paired_p_value])
def test_unequal_numbers_of_runs_are_an_error(compared: Callable[..., object]):
  with pytest.raises(
    ValueError, match=r"values has 1 .* baseline 2: .* each seed"
  ):
    compared([0.5], [0.25, 0.5])


def test_a_paired_p_value_is_scipy_s():
  expected = stats.ttest_rel(MINE, THEIRS).pvalue
  assert paired_p_value(MINE, THEIRS) == pytest.approx(expected, rel=1e-9)


def test_a_paired_p_value_where_all_pairs_differ_alike():
  assert paired_p_value([0.5, 0.75], [0.25, 0.5]) == 0
  assert paired_p_value([0.5, 0.75], [0.5, 0.75]) == 1
  assert math.isnan(paired_p_value([0.5], [0.25]))


def test_holm_leaves_out_what_is_no_test():
  found = holm_p_values([0.02, math.nan, 0.04, 0.9])
  assert found[:1] + found[2:] == pytest.approx([0.06, 0.08, 0.9])
  assert math.isnan(found[1])
