"""The runs, and the choice of a radius without the unbiased splits."""

import dataclasses
from collections.abc import Mapping, Sequence

from ml_collections import config_dict

from forgetsam.experiment.config import apply_overrides, load_config_file
from forgetsam.experiment.sweep import Mean

MICRO_BATCHES = (128, 32)
WEIGHT_DECAYS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4)
RADII: Mapping[str, Sequence[float]] = {
  "sam": (0.05, 0.1, 0.2, 0.4),
  "obf_gamma0": (0.1, 0.2, 0.4, 0.8),
  "obf_gamma1": (0.1, 0.2, 0.4, 0.8),
  "random": (0.5, 1.0, 2.0, 4.0),
}

# SAM and OBF without weight decay, added after the others.
ADDED = {
  "sam": (0.05, 0.1, 0.2),
  "obf_gamma0": (0.2, 0.4, 0.8),
  "obf_gamma1": (0.2, 0.4, 0.8),
}
CURVE_SEEDS, REPORT_SEEDS = range(5), range(5, 20)


@dataclasses.dataclass(frozen=True)
class Condition:
  """One method at one setting: what seeds repeat.

  Attributes:
    method: "plain" or a key of `RADII`.
    micro_batch_size: m.
    weight_decay: of the optimizer.
    rho: the radius; 0 for plain training.
  """

  method: str
  micro_batch_size: int
  weight_decay: float
  rho: float = 0.0

  @property
  def family(self) -> tuple[str, int]:
    """A radius is chosen for each."""
    return self.method, self.micro_batch_size

  def config(
    self, file: str, seed: int, overrides: Sequence[str] = ()
  ) -> config_dict.ConfigDict:
    """The configuration of one run.

    Args:
      file: the configurations' file.
      seed: of the run.
      overrides: `--config.key=value` arguments.
    """
    variant, _, gamma = self.method.partition("_gamma")
    config = load_config_file(f"{file}:{variant}")
    config.seed, config.micro_batch_size = seed, self.micro_batch_size
    config.optimizer.weight_decay = self.weight_decay
    if self.method != "plain":
      config.perturbation.rho = self.rho
    if gamma:
      config.ascent.gamma = float(gamma)
    return apply_overrides(config, overrides)


def plain_conditions() -> list[Condition]:
  """Plain training over weight decay."""
  return [Condition("plain", MICRO_BATCHES[0], wd) for wd in WEIGHT_DECAYS]


def curve_conditions(weight_decay: float) -> list[Condition]:
  """Every method over its radii, at plain training's weight decay."""
  return [
    Condition(method, m, weight_decay, rho)
    for method, radii in RADII.items()
    for m in MICRO_BATCHES
    for rho in radii
  ]


def choose_rho(rhos: Sequence[float], scores: Sequence[Mean | None]) -> float:
  """The largest radius within one standard error of the best.

  Accuracy on validation images with the training set's bias cannot tell
  which radius is best without it. It can tell which radii cost nothing that
  it sees: of those, the choice is the strongest.

  Args:
    rhos: the radii.
    scores: mean accuracy of each on biased validation images; None where a run
      diverged, which rules a radius out.

  Raises:
    ValueError: every radius is ruled out.

  Example:
    >>> choose_rho([0.1, 0.2, 0.4], [Mean(.96, .01), Mean(.97, .02),
    ...                              Mean(.94, .01)])
    0.2
  """
  usable = [(s, rho) for rho, s in zip(rhos, scores, strict=True) if s]
  if not usable:
    raise ValueError(
      f"rhos={list(rhos)}: runs of every radius diverged; add smaller ones"
    )
  best = max(score for score, _ in usable)
  least = best.mean - (best.standard_error or 0.0)
  return max(rho for score, rho in usable if score.mean >= least)
