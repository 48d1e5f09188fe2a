"""Rank correlations with intervals from resampling whole settings."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float, Int, Shaped

from forgetsam.experiment.sweep import holm_p_values
from forgetsam.studies.correlation._networks import Networks
from forgetsam.studies.correlation._rank_correlation import (
  kendall_of_signs,
  order_signs,
  partial_correlation,
  spearman_matrix,
)

Statistic = Callable[[Float[np.ndarray, " n"]], Float[np.ndarray, " k"]]


class Interval(NamedTuple):
  """A statistic with its bootstrap interval, and the resamples' deviation."""

  value: float
  low: float
  high: float
  standard_error: float


def cluster_counts(
  clusters: Shaped[np.ndarray, " n"], resamples: int, seed: int
) -> Int[np.ndarray, "resamples n"]:
  """How often each row is in each resample of whole clusters.

  Seeds of one setting are not independent observations: they come or stay
  away together.

  Args:
    clusters: the cluster of each row.
    resamples: how many.
    seed: of the draws.

  Example:
    >>> counts = cluster_counts(np.array([0, 0, 1]), resamples=1, seed=0)
    >>> bool(counts[0, 0] == counts[0, 1])
    True
  """
  names, index = np.unique(clusters, return_inverse=True)
  rng = np.random.default_rng(seed)
  drawn = rng.multinomial(
    len(names), np.full(len(names), 1 / len(names)), size=resamples
  )
  return drawn[:, index]


def bootstrap_intervals(
  statistic: Statistic,
  clusters: Shaped[np.ndarray, " n"],
  *,
  resamples: int = 1000,
  level: float = 0.95,
  seed: int = 0,
) -> list[Interval]:
  """Percentile intervals of several statistics, over clusters.

  Args:
    statistic: from each row's weight to the statistics; nan where a resample
      does not define one.
    clusters: the cluster of each row.
    resamples: how many.
    level: the probability that an interval should cover its statistic.
    seed: of the resamples.

  Returns:
    An interval for each statistic; nan for one that is not defined in at least
    half of the resamples.

  Example:
    >>> x = np.arange(20.0)
    >>> mean = lambda w: np.array([np.average(x, weights=w)])
    >>> (interval,) = bootstrap_intervals(mean, np.arange(20))
    >>> interval.value, bool(interval.low < 9.5 < interval.high)
    (9.5, True)

  References:
    Davison and Hinkley, *Bootstrap Methods and their Application*, 1997,
    sections 3.8 and 5.3.
  """
  value = statistic(np.ones(len(clusters)))
  counts = cluster_counts(clusters, resamples, seed)
  draws = np.stack([statistic(row.astype(float)) for row in counts])
  tail = 50 * (1 - level)
  intervals = []
  for v, column in zip(value, draws.T, strict=True):
    defined = column[np.isfinite(column)]
    if len(defined) < resamples / 2:
      intervals.append(Interval(float(v), np.nan, np.nan, np.nan))
      continue
    low, high = np.percentile(defined, [tail, 100 - tail])
    error = np.std(defined, ddof=1)
    intervals.append(Interval(float(v), float(low), float(high), float(error)))
  return intervals


def holm(intervals: Sequence[Interval]) -> list[float]:
  r"""Holm's adjusted p-values of "the statistic is zero".

  The single p-values are normal, :math:`2 \Phi(-|t| / \mathrm{se})` with the
  bootstrap's standard error.

  Args:
    intervals: the family of statistics that are looked at together.

  Returns:
    Adjusted p-values, in the same order; nan, outside of the family, where the
    statistic is.

  Example:
    >>> two = [Interval(1.96, 0, 0, 1.0), Interval(3.0, 0, 0, 1.0)]
    >>> [round(p, 4) for p in holm(two)]
    [0.05, 0.0054]
  """
  size = np.abs([t.value for t in intervals])
  with np.errstate(divide="ignore", invalid="ignore"):  # no spread at all
    scores = size / np.array([t.standard_error for t in intervals])
  return holm_p_values((2 * scipy.stats.norm.sf(scores)).tolist())


class Query(NamedTuple):
  """Two columns to correlate, and the controls of a partial correlation."""

  x: str
  y: str
  given: tuple[str, ...] = ()


def associate(
  networks: Networks,
  queries: Sequence[Query],
  *,
  kind: str = "kendall",
  resamples: int = 1000,
  seed: int = 0,
) -> list[Interval]:
  """Rank correlations with 95 % intervals from resampling whole settings.

  Args:
    networks: the rows to correlate over; all columns that the queries name are
      finite.
    queries: pairs of columns, with controls or without.
    kind: "kendall" or "spearman".
    resamples: of the bootstrap.
    seed: of the resamples.

  Returns:
    An `Interval` for each query. Seeds of one setting stay together. Training
    data, test data and the choice of the grid count as given.

  Raises:
    ValueError: a column is not finite, or kind is unknown.

  Example:
    >>> rows = {"setting": np.arange(9), "a": np.arange(9.0)}
    >>> rows["b"] = -rows["a"]
    >>> associate(rows, [Query("a", "b")], resamples=20)[0].value
    -1.0
  """
  if kind not in ("kendall", "spearman"):
    raise ValueError(f"kind={kind!r} must be 'kendall' or 'spearman'")
  names = sorted({n for q in queries for n in (q.x, q.y, *q.given)})
  columns = np.stack([networks[name] for name in names], axis=1).astype(float)
  for name, column in zip(names, columns.T, strict=True):
    if not np.isfinite(column).all():
      raise ValueError(f"column {name!r} must be finite: leave its rows out")
  places = [
    (names.index(q.x), names.index(q.y), tuple(map(names.index, q.given)))
    for q in queries
  ]
  signs = order_signs(columns)

  def statistic(weights: Float[np.ndarray, " n"]) -> np.ndarray:
    if kind == "kendall":
      matrix = kendall_of_signs(signs, len(columns), weights)
    else:
      matrix = spearman_matrix(np.repeat(columns, weights.astype(int), axis=0))
    return np.array([partial_correlation(matrix, *place) for place in places])

  return bootstrap_intervals(
    statistic, networks["setting"], resamples=resamples, seed=seed
  )
