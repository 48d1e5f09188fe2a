"""Means over seeds, their errors, and paired differences."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats


class Mean(NamedTuple):
  """A mean over runs and its standard error (None for a single run)."""

  mean: float
  standard_error: float | None


class Difference(NamedTuple):
  """A mean paired difference with a confidence interval (None for one pair)."""

  mean: float
  low: float | None
  high: float | None


def mean_over_runs(values: Sequence[float]) -> Mean:
  r"""The mean and its standard error.

  .. math:: \bar x = \frac1n \sum_i x_i, \qquad
     \mathrm{se} = \sqrt{\frac{\sum_i (x_i - \bar x)^2}{n (n - 1)}}

  Args:
    values: one number per run, at least one.

  Example:
    >>> mean_over_runs([1.0, 2.0, 3.0])
    Mean(mean=2.0, standard_error=0.577...)
  """
  error = float(scipy.stats.sem(values)) if len(values) > 1 else None
  return Mean(float(np.mean(values)), error)


def paired_difference(
  values: Sequence[float], baseline: Sequence[float], level: float = 0.95
) -> Difference:
  r"""The mean difference of runs that share a seed, with Student's interval.

  .. math:: \bar d \pm t_{n - 1,\,(1 + \mathrm{level}) / 2}\, \mathrm{se}(d),
     \qquad d_i = x_i - y_i

  Args:
    values: one number per seed.
    baseline: another method's numbers for the same seeds.
    level: the interval's coverage where differences are normal.

  Returns:
    The difference, values minus baseline.

  Raises:
    ValueError: there is another number of each.

  Example:
    >>> d = paired_difference([3.0, 5.0, 4.0], [1.0, 2.0, 3.0])
    >>> round(d.mean, 3), round(d.low, 3), round(d.high, 3)
    (2.0, -0.484, 4.484)
  """
  mean, error = _of_pairs(values, baseline)
  if error is None:
    return Difference(mean, None, None)
  # stats.t.interval is nan, and ttest_rel warns, where all pairs differ alike.
  reach = float(scipy.stats.t.ppf((1 + level) / 2, len(values) - 1)) * error
  return Difference(mean, mean - reach, mean + reach)


def paired_p_value(values: Sequence[float], baseline: Sequence[float]) -> float:
  """The two-sided p-value of Student's paired test; nan for a single pair.

  Args:
    values: one number per seed.
    baseline: another method's numbers for the same seeds.

  Raises:
    ValueError: there is another number of each.

  Example:
    >>> p = paired_p_value([3.0, 5.0, 4.0], [1.0, 2.0, 3.0])
    >>> round(p, 3)
    0.074
  """
  mean, error = _of_pairs(values, baseline)
  if error is None:
    return np.nan
  if not error:  # stats.ttest_rel warns where all pairs differ alike
    return float(mean == 0)
  score = abs(mean) / error
  return float(2 * scipy.stats.t.sf(score, len(values) - 1))


def _of_pairs(values: Sequence[float], baseline: Sequence[float]) -> Mean:
  """The mean of the differences and its standard error."""
  if len(values) != len(baseline):
    raise ValueError(
      f"values has {len(values)} numbers and baseline {len(baseline)}: pass "
      "one of each seed"
    )
  return mean_over_runs(np.subtract(values, baseline).tolist())


def holm_p_values(p_values: Sequence[float]) -> list[float]:
  r"""Adjusts p-values for how many hypotheses are tested together.

  The j-th smallest of n becomes the largest of :math:`(n - i + 1)\, p_{(i)}`
  over :math:`i \le j`, at most 1. The chance of any false rejection is then at
  most the level, whatever the dependence.

  Args:
    p_values: of a family of hypotheses; nan is none of it.

  Returns:
    Adjusted p-values, in the same order.

  Example:
    >>> [round(p, 3) for p in holm_p_values([0.04, 0.01, 0.03])]
    [0.06, 0.03, 0.06]

  References:
    Holm, *A Simple Sequentially Rejective Multiple Test Procedure*, 1979.
  """
  single = np.asarray(p_values, float)
  adjusted = np.full(len(single), np.nan)
  defined = np.flatnonzero(np.isfinite(single))
  order = defined[np.argsort(single[defined])]
  factors = np.arange(len(order), 0, -1)
  adjusted[order] = np.minimum(
    np.maximum.accumulate(factors * single[order]), 1
  )
  return [float(p) for p in adjusted]
