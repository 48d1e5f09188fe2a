"""Rank correlations agree with SciPy, with repeated rows and closed forms."""

import numpy as np
import pytest
import scipy.stats

from forgetsam.studies.correlation import (
  kendall_matrix,
  partial_correlation,
  spearman_matrix,
)
from forgetsam.studies.correlation._rank_correlation import (
  kendall_of_signs,
  order_signs,
)


@pytest.fixture
def columns() -> np.ndarray:
  rng = np.random.default_rng(0)
  x = rng.normal(size=(30, 4))
  x[:, 1] += 2 * x[:, 0]
  x[:, 2] = np.round(x[:, 2])  # many ties
  x[:, 3] -= x[:, 1]
  return x


def test_kendall_is_tau_b(columns: np.ndarray):
  matrix = kendall_matrix(columns)
  for i in range(4):
    for j in range(4):
      expected = scipy.stats.kendalltau(columns[:, i], columns[:, j]).statistic
      assert matrix[i, j] == pytest.approx(expected, abs=1e-6)


def test_spearman_is_scipys(columns: np.ndarray):
  expected = scipy.stats.spearmanr(columns).statistic
  np.testing.assert_allclose(spearman_matrix(columns), expected, atol=1e-12)


def test_weights_repeat_rows(columns: np.ndarray):
  weights = np.random.default_rng(1).integers(0, 4, len(columns))
  repeated = np.repeat(columns, weights, axis=0)
  np.testing.assert_allclose(
    kendall_matrix(columns, weights.astype(float)),
    kendall_matrix(repeated),
    atol=1e-6,
  )
  np.testing.assert_allclose(
    kendall_of_signs(order_signs(columns), 30, weights.astype(float))[0, 1],
    scipy.stats.kendalltau(repeated[:, 0], repeated[:, 1]).statistic,
    atol=1e-6,
  )


def test_a_constant_column_has_no_correlation():
  matrix = kendall_matrix(np.array([[1.0, 2.0], [1.0, 3.0]]))
  assert np.isnan(matrix[0, 1])
  assert matrix[1, 1] == 1


def test_one_control_is_kendalls_formula(columns: np.ndarray):
  t = kendall_matrix(columns)
  expected = (t[0, 1] - t[0, 3] * t[1, 3]) / np.sqrt(
    (1 - t[0, 3] ** 2) * (1 - t[1, 3] ** 2)
  )
  assert partial_correlation(t, 0, 1, (3,)) == pytest.approx(expected)


def test_two_controls_are_one_after_the_other(columns: np.ndarray):
  t = kendall_matrix(columns)
  once = {
    (i, j): partial_correlation(t, i, j, (2,))
    for i, j in ((0, 1), (0, 3), (1, 3))
  }
  expected = (once[0, 1] - once[0, 3] * once[1, 3]) / np.sqrt(
    (1 - once[0, 3] ** 2) * (1 - once[1, 3] ** 2)
  )
  assert partial_correlation(t, 0, 1, (2, 3)) == pytest.approx(expected)


def test_controls_that_say_the_same_count_once(columns: np.ndarray):
  doubled = np.concatenate([columns, columns[:, 3:] ** 3], axis=1)
  t = kendall_matrix(doubled)
  assert partial_correlation(t, 0, 1, (3, 4)) == pytest.approx(
    partial_correlation(t, 0, 1, (3,)), abs=1e-5
  )


def test_a_constant_control_is_left_out(columns: np.ndarray):
  columns[:, 2] = 5.0
  t = kendall_matrix(columns)
  assert partial_correlation(t, 0, 1, (2,)) == t[0, 1]
  assert partial_correlation(t, 0, 1, (2, 3)) == pytest.approx(
    partial_correlation(t, 0, 1, (3,))
  )


def test_what_follows_from_the_controls_has_no_partial_correlation(
  columns: np.ndarray,
):
  t = kendall_matrix(columns)
  assert np.isnan(partial_correlation(t, 0, 1, (1,)))


def test_a_confounder_explains_its_effects():
  # x and y are noisy copies of z: related, and much less so given z.
  rng = np.random.default_rng(2)
  z = rng.normal(size=800)
  noise = rng.normal(size=(2, 800))
  t = kendall_matrix(np.stack([z + noise[0], z + noise[1], z], axis=1))
  assert t[0, 1] == pytest.approx(2 / np.pi * np.arcsin(0.5), abs=0.04)
  # tau of a bivariate normal is 2/pi arcsin(r): here 1/3 and 1/2.
  assert partial_correlation(t, 0, 1, (2,)) == pytest.approx(1 / 9, abs=0.04)
