"""The stratified jackknife by its definition: delete, recompute, in float64."""

import numpy as np


def weights_of(labels):
  """Each example's weight, by class proportions that stay as they are."""
  counts = np.bincount(labels)
  share = counts / len(labels)
  return share[labels] / counts[labels]


def stratified(statistic, labels):
  """Value, corrected value and standard error of `statistic(kept, weights)`.

  Leaving an example out spreads its weight over the others of its class.
  """
  n = len(labels)
  whole = statistic(np.arange(n), weights_of(labels))
  left = np.empty(n)
  share = np.bincount(labels) / n
  for i in range(n):
    kept = np.delete(np.arange(n), i)
    counts = np.bincount(labels[kept], minlength=len(share))
    left[i] = statistic(kept, share[labels[kept]] / counts[labels[kept]])
  corrected, variance = whole, 0.0
  for c in range(len(share)):
    mine = left[labels == c]
    m = len(mine)
    if m:
      corrected += (m - 1) * (whole - mine.mean())
      variance += (m - 1) / m * np.sum((mine - mine.mean()) ** 2)
  return whole, corrected, np.sqrt(variance)


def entropy(p):
  return -np.sum(p * np.log(np.where(p > 0, p, 1)), axis=-1)


def unconditional(p):
  def statistic(kept, weights):
    return entropy(weights @ p[kept]) - weights @ entropy(p[kept])

  return statistic


def conditional(p, labels):
  def statistic(kept, weights):
    total = 0.0
    for c in np.unique(labels):
      mine = labels[kept] == c
      share = weights[mine].sum()
      w = weights[mine] / share
      q = p[kept][mine]
      total += share * (entropy(w @ q) - w @ entropy(q))
    return total

  return statistic


def conditional_variance(p, labels):
  def statistic(kept, weights):
    return sum(
      weights[labels[kept] == c].sum()
      * p[kept][labels[kept] == c].var(axis=0, ddof=1).sum()
      for c in np.unique(labels)
    )

  return statistic


def unconditional_variance(p, labels):
  """Unbiased: the mean of squares, less an unbiased squared mean."""

  def statistic(kept, weights):
    q, mean = p[kept], weights @ p[kept]
    squared_mean = mean @ mean
    for c in np.unique(labels):
      mine = labels[kept] == c
      variance = q[mine].var(axis=0, ddof=1).sum() / mine.sum()
      squared_mean -= weights[mine].sum() ** 2 * variance
    return weights @ np.sum(q**2, axis=1) - squared_mean

  return statistic
