"""Rank correlations between the table's columns, with intervals."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from forgetsam.studies.correlation._bootstrap import (
  Interval,
  bootstrap_intervals,
)
from forgetsam.studies.correlation._networks import Networks
from forgetsam.studies.correlation._rank_correlation import (
  kendall_of_signs,
  order_signs,
  partial_correlation,
  spearman_matrix,
)


class Query(NamedTuple):
  """What to correlate.

  Attributes:
    x: a column.
    y: another one.
    given: controls of a partial correlation.
  """

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
  place = {name: i for i, name in enumerate(names)}
  signs = order_signs(columns)

  def statistic(weights: Float[np.ndarray, " n"]) -> np.ndarray:
    if kind == "kendall":
      matrix = kendall_of_signs(signs, len(columns), weights)
    else:
      matrix = spearman_matrix(np.repeat(columns, weights.astype(int), axis=0))
    return np.array(
      [
        partial_correlation(
          matrix, place[q.x], place[q.y], tuple(place[g] for g in q.given)
        )
        for q in queries
      ]
    )

  return bootstrap_intervals(
    statistic, networks["setting"], resamples=resamples, seed=seed
  )
