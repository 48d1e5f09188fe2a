"""Rank correlations of all pairs of columns at once, weighted."""

import numpy as np
import scipy.stats
from jaxtyping import Float

Columns = Float[np.ndarray, "n columns"]
Matrix = Float[np.ndarray, "columns columns"]
Weights = Float[np.ndarray, " n"]


def order_signs(columns: Columns) -> Float[np.ndarray, "columns pairs"]:
  """Which of two rows is the larger: 1, -1, or 0 for a tie, i < j."""
  left, right = np.triu_indices(len(columns), k=1)
  return np.sign(columns[left] - columns[right]).T.astype(np.float32)


def kendall_matrix(columns: Columns, weights: Weights | None = None) -> Matrix:
  r"""Kendall's tau-b between all columns.

  .. math:: \tau_{xy} = \frac{\sum_{i<j} s^x_{ij} s^y_{ij}}
     {\sqrt{\sum_{i<j} (s^x_{ij})^2 \sum_{i<j} (s^y_{ij})^2}}, \qquad
     s^x_{ij} = \operatorname{sign}(x_i - x_j)

  It is a correlation matrix of signs, and so positive semi-definite, which
  `partial_correlation` needs.

  Args:
    columns: finite numbers.
    weights: how often each row counts, as a bootstrap sample has it; `None` is
      once.

  Returns:
    The matrix; nan for a column that is constant.

  Example:
    >>> x = np.array([[1.0, 1.0], [2.0, 3.0], [3.0, 2.0]])
    >>> round(float(kendall_matrix(x)[0, 1]), 4)  # two pairs agree, one not
    0.3333

  References:
    Kendall, *The Treatment of Ties in Ranking Problems*, 1945.
  """
  return kendall_of_signs(order_signs(columns), len(columns), weights)


def kendall_of_signs(
  signs: Float[np.ndarray, "columns pairs"],
  num_rows: int,
  weights: Weights | None = None,
) -> Matrix:
  """`kendall_matrix` of what `order_signs` returns, for repeated use."""
  # scipy's kendalltau takes one pair of columns, and no weights: the bootstrap
  # and the partial coefficients need all pairs, thousands of times.
  weighted = signs
  if weights is not None:
    left, right = np.triu_indices(num_rows, k=1)
    weighted = signs * (weights[left] * weights[right]).astype(np.float32)
  return _normalized(np.asarray(weighted @ signs.T, np.float64))


def spearman_matrix(columns: Columns) -> Matrix:
  r"""Spearman's rho between all columns: the correlation of mid-ranks.

  Args:
    columns: finite numbers; repeat rows for a bootstrap sample.

  Returns:
    The matrix; nan for a column that is constant.

  Example:
    >>> x = np.array([[1.0, 1.0], [2.0, 4.0], [3.0, 9.0]])
    >>> round(float(spearman_matrix(x)[0, 1]), 4)
    1.0
  """
  # scipy's spearmanr warns of constant columns, which resamples may have.
  ranks = scipy.stats.rankdata(columns, axis=0)
  centred = ranks - ranks.mean(axis=0)
  return _normalized(centred.T @ centred)


def partial_correlation(
  matrix: Matrix, i: int, j: int, given: tuple[int, ...]
) -> float:
  r"""The correlation of two columns given others, from a correlation matrix.

  .. math:: \tau_{ij \cdot G} = \frac{\tau_{ij} - \tau_{iG} T_{GG}^{-1}
     \tau_{Gj}}{\sqrt{(1 - \tau_{iG} T_{GG}^{-1} \tau_{Gi})
     (1 - \tau_{jG} T_{GG}^{-1} \tau_{Gj})}}

  for one control Kendall's :math:`(\tau_{ij} - \tau_{ig} \tau_{jg}) /
  \sqrt{(1 - \tau_{ig}^2)(1 - \tau_{jg}^2)}`. It removes what is linear in the
  *signs* of the controls. That is not independence: a partial tau need not be
  zero for columns that are independent given the controls.

  Args:
    matrix: as `kendall_matrix` or `spearman_matrix` returns it.
    i: a column.
    j: another one.
    given: the controls; the constant ones among them are left out.

  Returns:
    The partial correlation; nan where i or j is constant, or is or follows from
    the controls.

  Example:
    >>> t = np.array([[1.0, 0.5, 0.5], [0.5, 1.0, 0.5], [0.5, 0.5, 1.0]])
    >>> round(partial_correlation(t, 0, 1, (2,)), 4)  # (1/2 - 1/4) / (3/4)
    0.3333

  References:
    Kendall, *Partial Rank Correlation*, 1942.
  """
  if {i, j} & set(given):
    return float("nan")
  known = [g for g in given if np.isfinite(matrix[g, g])]
  if not known:
    return float(matrix[i, j])
  rest = matrix[np.ix_([i, j], [i, j])]
  if not np.isfinite(rest).all():
    return float("nan")
  across = matrix[np.ix_([i, j], known)]
  # Controls that order all rows alike are one control.
  inverse = np.linalg.pinv(
    matrix[np.ix_(known, known)], rcond=1e-6, hermitian=True
  )
  residual = rest - across @ inverse @ across.T
  if min(residual[0, 0], residual[1, 1]) < 1e-6:
    return float("nan")
  return float(residual[0, 1] / np.sqrt(residual[0, 0] * residual[1, 1]))


def _normalized(gram: Matrix) -> Matrix:
  scale = np.sqrt(np.diag(gram))
  scale = np.where(scale > 0, scale, np.nan)
  return gram / np.outer(scale, scale)
