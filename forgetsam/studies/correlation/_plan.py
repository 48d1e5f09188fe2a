"""From a study's file to its arms, and the networks of each."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from forgetsam.experiment.config import (
  KEYS,
  ConfigError,
  leaves,
  refusal,
  run_config_file,
  split_config,
)
from forgetsam.experiment.sweep import (
  Trial,
  check_trials,
  parse_grid,
  plan_trials,
)
from forgetsam.experiment.sweep import settings as grid_settings
from forgetsam.studies.correlation._functions import ASCENTS, PERTURBATIONS

# Examples of each class in a probe, unless `config.forgetting.per_class` says.
PER_CLASS = 40


# What tells a network's own offset, where it perturbs.
_MEASURED: Mapping[str, tuple[str, ...]] = {
  "ascent": ("name", "gamma", "activation"),
  "perturbation": (
    *("name", "rho", "rho_schedule", "rho_min", "rho_options"),
    *("every_k", "start", "stop"),
  ),
  "method": (),
}
_ALIKE = ("model.", "loss.name", "loss.options", "ascent.activation")


@dataclasses.dataclass(frozen=True)
class Arm:
  """One data set's networks: every trial with every seed.

  Attributes:
    name: of the arm.
    trials: a variant at a setting each.
    seeds: of each trial.
    test: the TFDS split that is tested on, or None for the set's own.
  """

  name: str
  trials: list[Trial]
  seeds: range
  test: str | None = None

  def runs(self) -> list[tuple[Trial, int]]:
    """All networks, seed after seed: half of a study covers the grid."""
    return [(trial, seed) for seed in self.seeds for trial in self.trials]


def plan_study(
  file: str,
  overrides: Sequence[str],
  arms: Sequence[str],
  *,
  num_devices: int = 1,
) -> list[Arm]:
  """The networks of a study.

  Args:
    file: a configurations' file that defines `STUDY`; see
      `configs/study_fashion.py`.
    overrides: `--config.key=value` arguments for all networks.
    arms: some of the file's arms; empty for all of them.
    num_devices: what the networks will be trained on.

  Returns:
    The arms, in the file's order, checked.

  Raises:
    ConfigError: the file has no study, an arm is unknown, or a configuration
      cannot run.
  """
  if not file or split_config(file)[1] is not None:
    allowed = "a file alone, such as configs/study_fashion.py"
    raise ConfigError(refusal("--config", file, allowed))
  declared = run_config_file(file, "STUDY")
  _check_declared(file, declared)
  for arm in arms:
    if arm not in declared["arms"]:
      allowed = "arms of the file: " + ", ".join(declared["arms"])
      raise ConfigError(refusal("--arms", arm, allowed))
  grids = {name: parse_grid(grid) for name, grid in declared["grids"].items()}
  planned = []
  for name, arm in declared["arms"].items():
    if arms and name not in arms:
      continue
    changes = {"forgetting.per_class": PER_CLASS, **arm["changes"]}
    given = [f"--config.{key}={v}" for key, v in changes.items()] + [*overrides]
    variants = {key: grid_settings(grid) for key, grid in grids.items()}
    trials = plan_trials(file, given, variants)
    _check_measurable(trials, given)
    seeds = range(arm["seeds"])
    check_trials(
      trials, seeds, splits=("validation", "test"), num_devices=num_devices
    )
    planned.append(Arm(name, trials, seeds, arm.get("test")))
  _check_alike(planned)
  return planned


def _check_measurable(trials: Sequence[Trial], given: Sequence[str]) -> None:
  """Refuses keys that the study does not read, and what it cannot measure."""
  for argument in given:
    key, _, value = argument.lstrip("-").partition("=")
    fixed = key.startswith(("config.forgetting.", "config.sharpness."))
    if fixed and key != "config.forgetting.per_class":
      allowed = "no value: a study's measures are the same for every network"
      raise ConfigError(refusal(key, value, allowed))
  for trial in trials:
    if (perturbation := trial.config.perturbation.name) == "none":
      continue
    _check_one_of("perturbation.name", perturbation, PERTURBATIONS)
    _check_one_of("ascent.name", trial.config.ascent.name, ASCENTS)
    for key, value in leaves(trial.config).items():
      group, _, name = key.partition(".")
      measured = _MEASURED.get(group)
      default = KEYS[key].default if key in KEYS else None
      if measured is not None and name.partition(".")[0] not in measured:
        _check_one_of(key, value, [default])


def _check_one_of(key: str, value: Any, allowed: Iterable[Any]) -> None:
  if value not in allowed:
    measured = " or ".join(map(repr, allowed))
    text = f"{measured} in a study, which measures no other offset"
    raise ConfigError(refusal(f"config.{key}", value, text))


def _check_alike(arms: Sequence[Arm]) -> None:
  """Refuses what must be the same for every network, as measures are."""
  seen: dict[str, Any] = {}
  for arm in arms:
    for trial in arm.trials:
      for key, value in leaves(trial.config).items():
        if not key.startswith(_ALIKE):
          continue
        if (first := seen.setdefault(key, value)) != value:
          allowed = f"{first!r}, as other networks of the study have"
          raise ConfigError(refusal(f"config.{key}", value, allowed))


def _check_declared(file: str, declared: Any) -> None:
  """Refuses a STUDY of another form than `configs/study_fashion.py` has."""
  try:
    arms = declared["arms"].values()
    well_formed = (
      len(arms) > 0
      and len(declared["grids"]) > 0
      and all(isinstance(arm["seeds"], int) for arm in arms)
      and all(isinstance(arm["changes"], dict) for arm in arms)
      and all(isinstance(grid, str) for grid in declared["grids"].values())
    )
  except (AttributeError, KeyError, TypeError):
    well_formed = False
  if not well_formed:
    allowed = (
      "a file whose STUDY has arms, each with seeds and changes, and a grid for"
      " each variant, as in configs/study_fashion.py"
    )
    raise ConfigError(refusal("--config", file, allowed))
