"""The granulated coefficient: one hyper-parameter at a time."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Shaped

Column = Float[np.ndarray, " n"]
Axis = Shaped[np.ndarray, " n"]


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
    group = combined([fixed, *others])
    values = combined([axes[name]])
    taus = [
      _pairs_mean(measure[rows], target[rows])
      for g in np.unique(group)
      if len(np.unique(values[rows := np.flatnonzero(group == g)])) > 1
    ]
    if taus:
      psi[name] = float(np.mean(taus))
  psi["Psi"] = float(np.mean(list(psi.values()))) if psi else float("nan")
  return psi


def combined(axes: list[Axis]) -> Axis:
  """A number for each combination of values."""
  code = np.zeros(len(axes[0]), int)
  for axis in axes:
    values, index = np.unique(axis, return_inverse=True)
    _, code = np.unique(code * len(values) + index, return_inverse=True)
  return code


def _pairs_mean(measure: Column, target: Column) -> float:
  left, right = np.triu_indices(len(measure), k=1)
  agree = np.sign(measure[left] - measure[right])
  agree = agree * np.sign(target[left] - target[right])
  return float(np.mean(agree))
