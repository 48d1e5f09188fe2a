"""The choice of a setting by the one-standard-error rule."""

import math
from collections.abc import Sequence
from typing import Any

from forgetsam.experiment.config import KEYS
from forgetsam.experiment.sweep._statistics import Mean

# Of settings that score alike, the one is chosen that perturbs least, then
# decays least, steps least, and ascends on the largest micro-batches.
_TIE_BREAKS = sorted(
  (key for key, row in KEYS.items() if row.tie_break),
  key=lambda key: abs(KEYS[key].tie_break),
)


def choose(
  settings: Sequence[dict[str, Any]], scores: Sequence[Mean | None]
) -> int | None:
  """Chooses the weakest setting within one standard error of the best.

  With the best mean score and *its* standard error, every setting whose mean is
  at least their difference counts as good as the best. Among these the choice
  has the smallest rho, then the smallest weight decay, then the smallest
  learning rate, then the largest micro-batches (none, the device's whole
  share, is the largest); where all these agree, the first of the grid.

  Args:
    settings: the tuned keys and values of each setting.
    scores: mean validation accuracy of each, or the loss with a minus sign,
      with its standard error over seeds; None where a run diverged, which rules
      a setting out.

  Returns:
    The index of the choice, or None where every setting is ruled out.

  Example:
    >>> settings = [{"perturbation.rho": rho} for rho in (0.4, 0.2, 0.1)]
    >>> choose(settings, [Mean(0.90, 0.02), Mean(0.89, 0.01), Mean(0.8, 0.01)])
    1

  References:
    Breiman et al., *Classification and Regression Trees*, 1984, section 3.4.3.
  """
  usable = [(i, score) for i, score in enumerate(scores) if score is not None]
  if not usable:
    return None
  best = max(usable, key=lambda item: item[1].mean)[1]
  least = best.mean - (best.standard_error or 0.0)
  as_good = [i for i, score in usable if score.mean >= least]
  return min(as_good, key=lambda i: (*_rank(settings[i]), i))


def _rank(setting: dict[str, Any]) -> tuple[float, ...]:
  def rank(key: str) -> float:
    value = setting.get(key)
    if value is None:  # an optional key that is none, or a key not tuned
      value = math.inf
    return math.copysign(1, KEYS[key].tie_break) * float(value)

  return tuple(map(rank, _TIE_BREAKS))
