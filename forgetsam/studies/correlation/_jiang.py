"""Jiang et al.'s scores: granulated Kendall, conditional independence."""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import scipy.special
from jaxtyping import Float, Int, Shaped

from forgetsam.studies.correlation._rank_correlation import order_signs

Column = Float[np.ndarray, " n"]
Axis = Shaped[np.ndarray, " n"]
Codes = Int[np.ndarray, " pairs"]


def granulated_kendall(
  measure: Column, target: Column, axes: Mapping[str, Axis], fixed: Axis
) -> dict[str, float]:
  r"""Kendall's coefficient over single hyper-parameters, and their mean.

  .. math:: \psi_i = \frac{1}{m_i} \sum_{g \in G_i} \tau(g), \qquad
     \Psi = \frac1n \sum_i \psi_i

  with :math:`G_i` the groups of networks that agree in everything but
  hyper-parameter i, and, as in the paper, :math:`\tau(g)` the mean of
  :math:`\operatorname{sign}(\Delta\mu) \operatorname{sign}(\Delta g)` over the
  pairs of a group. A measure that only tells one hyper-parameter's values
  apart has a high coefficient there and none elsewhere.

  Args:
    measure: a value for each network.
    target: what it should rank.
    axes: the hyper-parameters by name.
    fixed: what must agree within every group besides, such as method and seed.

  Returns:
    psi by name, for those that vary, and their mean as "Psi"; nan where none
    does.

  Example:
    >>> axes = {"rho": np.array([0, 1, 0, 1]), "m": np.array([0, 0, 1, 1])}
    >>> measure, target = np.array([0.0, 1, 2, 3]), np.array([0.0, 1, -2, -1])
    >>> granulated_kendall(measure, target, axes, np.zeros(4))
    {'rho': 1.0, 'm': -1.0, 'Psi': 0.0}

  References:
    Jiang et al., *Fantastic Generalization Measures and Where to Find Them*,
    2020, equations (4) and (5).
  """
  psi: dict[str, float] = {}
  for name in axes:
    others = [axis for other, axis in axes.items() if other != name]
    group = combined([fixed, *others], len(fixed))
    values = combined([axes[name]], len(fixed))
    taus = [
      _pairs_mean(measure[rows], target[rows])
      for g in np.unique(group)
      if len(np.unique(values[rows := np.flatnonzero(group == g)])) > 1
    ]
    if taus:
      psi[name] = float(np.mean(taus))
  psi["Psi"] = float(np.mean(list(psi.values()))) if psi else float("nan")
  return psi


def combined(axes: list[Axis], size: int) -> Axis:
  """A number for each combination of values, in each of `size` rows."""
  code = np.zeros(size, int)
  for axis in axes:
    values, index = np.unique(axis, return_inverse=True)
    _, code = np.unique(code * len(values) + index, return_inverse=True)
  return code


def _pairs_mean(measure: Column, target: Column) -> float:
  signs = order_signs(np.stack([measure, target], axis=1))
  return float(np.mean(signs[0] * signs[1], dtype=float))


class ConditionalIndependence(NamedTuple):
  """The score of Jiang et al.

  Attributes:
    score: K, the smallest normalised information, in [0, 1].
    given: the hyper-parameters that explain most of the measure.
    unconditional: the normalised information given nothing.
  """

  score: float
  given: tuple[str, ...]
  unconditional: float


def conditional_independence(
  measure: Column, target: Column, axes: Mapping[str, Axis], max_given: int = 2
) -> ConditionalIndependence:
  r"""How much a measure's order tells of the target's, given hyper-parameters.

  .. math:: K = \min_{|S| \le 2} \frac{I(V_\mu; V_g \mid U_S)}{H(V_g \mid U_S)}

  over ordered pairs of networks: :math:`V_\mu` and :math:`V_g` are the signs of
  the differences in measure and target, and :math:`U_S` the values that the
  hyper-parameters S have in both. A measure that only repeats what, say, the
  learning rate says has K = 0.

  *Bias*: the information of counts is too large, by about one over twice the
  number of pairs that share U_S; pairs are not independent either. Compare with
  the score of a permuted measure, such as `permuted_score` gives.

  Args:
    measure: a value for each network.
    target: what it should rank.
    axes: the hyper-parameters by name.
    max_given: the largest set S.

  Returns:
    The score, and the set that it was reached at.

  Raises:
    ValueError: all targets are equal.

  Example:
    >>> x = np.arange(8.0)
    >>> found = conditional_independence(x, x, {"rho": np.arange(8) // 4})
    >>> round(found.score, 3), round(found.unconditional, 3)
    (1.0, 1.0)

  References:
    Jiang et al., *Fantastic Generalization Measures and Where to Find Them*,
    2020, section 4.3 and equations (8) to (11).
  """
  left, right = np.nonzero(~np.eye(len(measure), dtype=bool))
  v_measure = np.sign(measure[left] - measure[right]).astype(int) + 1
  v_target = np.sign(target[left] - target[right]).astype(int) + 1
  found: dict[tuple[str, ...], float] = {}
  for size in range(max_given + 1):
    for given in itertools.combinations(axes, size):
      one = combined([axes[name] for name in given], len(measure))
      code = one[left] * (one.max() + 1) + one[right]
      found[given] = _normalized_information(v_measure, v_target, code)
  best = min(found, key=found.__getitem__)
  return ConditionalIndependence(found[best], best, found[()])


def permuted_score(
  measure: Column,
  target: Column,
  axes: Mapping[str, Axis],
  *,
  permutations: int = 10,
  seed: int = 0,
) -> float:
  """The mean score of the measure after permutations: the score of nothing.

  Example:
    >>> x = np.arange(12.0)
    >>> permuted_score(x, x, {"rho": np.arange(12) // 6}) < 0.3
    True
  """
  rng = np.random.default_rng(seed)
  scores = [
    conditional_independence(rng.permutation(measure), target, axes).score
    for _ in range(permutations)
  ]
  return float(np.mean(scores))


def _normalized_information(x: Codes, y: Codes, given: Codes) -> float:
  """I(x; y | given) / H(y | given), for codes 0, 1, 2 of x and y."""
  _, cell = np.unique(given, return_inverse=True)
  shape = int(np.max(cell)) + 1, 3, 3
  counts = np.bincount((cell * 3 + x) * 3 + y, minlength=np.prod(shape))
  joint = counts.reshape(shape) / len(x)
  h_y = _entropy(joint.sum(1)) - _entropy(joint.sum((1, 2)))
  if h_y <= 1e-12:
    if len(np.unique(y)) == 1:
      raise ValueError("target must have at least two different values")
    return float("inf")  # nothing is left to be told
  information = (
    _entropy(joint.sum(2)) + _entropy(joint.sum(1))
    - _entropy(joint) - _entropy(joint.sum((1, 2)))
  )  # fmt: skip
  return float(max(information, 0.0) / h_y)


def _entropy(p: Float[np.ndarray, "..."]) -> float:
  return float(scipy.special.entr(p).sum())
