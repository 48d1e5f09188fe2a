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
  if len(values) != len(baseline):
    raise ValueError(
      f"values has {len(values)} numbers and baseline {len(baseline)}: pass "
      "one of each seed"
    )
  mean, error = mean_over_runs(np.subtract(values, baseline).tolist())
  if error is None:
    return Difference(mean, None, None)
  # stats.t.interval is nan, and ttest_rel warns, where all pairs differ alike.
  reach = float(scipy.stats.t.ppf((1 + level) / 2, len(values) - 1)) * error
  return Difference(mean, mean - reach, mean + reach)
