"""The runs of a sweep: every variant, setting and seed, with its config."""

import dataclasses
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ml_collections import config_dict

from forgetsam.experiment.config import (
  ConfigError,
  apply_overrides,
  check_config,
  leaves,
  load_config_file,
  refusal,
  row_of,
)
from forgetsam.experiment.sweep._grid import Setting

# Seeds are traced, and JAX's integers have 32 bits.
SEED_LIMIT = 2**31
_LONGEST_NAME = 255  # of a file


@dataclasses.dataclass(frozen=True)
class Trial:
  """One variant at one setting: what seeds repeat.

  Attributes:
    variant: the variant's name.
    values: the tuned keys and their values, as the configuration holds them.
    config: the configuration, with the first seed.
  """

  variant: str
  values: dict[str, Any]
  config: config_dict.ConfigDict

  @property
  def label(self) -> str:
    """The tuned keys as a user reads them; empty where there are none."""
    return self._joined(", ")

  @property
  def folder(self) -> str:
    """The trial's place among the records."""
    name = urllib.parse.quote(self._joined(","), safe="=,() ")
    return f"{self.variant}/{name}".strip("/")

  def _joined(self, comma: str) -> str:
    return comma.join(f"{key}={value}" for key, value in self.values.items())

  def with_seed(self, seed: int) -> config_dict.ConfigDict:
    """The configuration of one run."""
    config = self.config.copy_and_resolve_references()
    config.seed = seed
    return config


def plan_trials(
  file: str, overrides: Sequence[str], variants: Mapping[str, Iterable[Setting]]
) -> list[Trial]:
  """Builds the configurations of a sweep.

  Args:
    file: the configurations' file.
    overrides: `--config.key=value` arguments for all of them.
    variants: the settings of each variant.

  Returns:
    The trials, variant after variant.

  Raises:
    ConfigError: a variant, key or value is unknown, a setting would override
      what the command line sets, or two settings are the same.
  """
  trials: dict[str, Trial] = {}
  for variant, several in variants.items():
    for setting in several:
      trial = _trial(file, overrides, variant, setting)
      if any(len(name) > _LONGEST_NAME for name in trial.folder.split("/")):
        allowed = (
          f"settings whose keys and values have at most {_LONGEST_NAME} "
          "characters: they name a folder of records"
        )
        raise ConfigError(refusal("--grid", trial.label, allowed))
      if trial.folder in trials:
        raise ConfigError(refusal("--grid", trial.label, "each setting once"))
      trials[trial.folder] = trial
  return list(trials.values())


def _trial(
  file: str, overrides: Sequence[str], variant: str, setting: Setting
) -> Trial:
  config = load_config_file(f"{file}:{variant}")
  apply_overrides(config, overrides)
  _refuse_overridden(setting, overrides)
  apply_overrides(config, [f"--config.{k}={v}" for k, v in setting.items()])
  found = leaves(config)
  trial = Trial(variant, {key: found[key] for key in setting}, config)
  _refuse_unread(trial)
  return trial


def _refuse_overridden(setting: Setting, overrides: Sequence[str]) -> None:
  for key, value in setting.items():
    given = [o for o in overrides if o.lstrip("-").startswith(f"config.{key}=")]
    if given:
      allowed = f"no value beside the setting's own, {value}"
      typed = given[-1].partition("=")[2]
      raise ConfigError(refusal(f"config.{key}", typed, allowed))


def _refuse_unread(trial: Trial) -> None:
  """A plain variant would repeat the same run over a grid of radii."""
  if trial.config.perturbation.name != "none":
    return
  for key, value in trial.values.items():
    row = row_of(key)
    if row is not None and row.perturbs:
      allowed = (
        f"no grid or setting of it for {trial.variant!r}, which perturbs "
        "nothing; give the variant a sweep of its own in the same --workdir"
      )
      raise ConfigError(refusal(f"config.{key}", value, allowed))


def check_trials(
  trials: Sequence[Trial],
  seeds: range,
  *,
  splits: Sequence[str],
  num_devices: int,
) -> None:
  """Refuses configurations that cannot run, before data or compilation.

  Raises:
    ConfigError: it names the key, and the trial.
  """
  if not 0 <= seeds.start < seeds.stop <= SEED_LIMIT:
    allowed = f"seeds from 0 to {SEED_LIMIT - 1}, at least one"
    text = f"{seeds.start}, --seeds={len(seeds)}"
    raise ConfigError(refusal("--first_seed", text, allowed))
  for trial in trials:
    try:
      check_config(trial.config, num_devices)
      if "validation" in splits and trial.config.data.validation == 0:
        allowed = "above 0 where settings are chosen: they are on held-out data"
        raise ConfigError(refusal("config.data.validation", 0, allowed))
      for name, size in trial.config.mesh.items():
        if size != 1:
          allowed = "1 in a sweep, whose networks each fit a device"
          raise ConfigError(refusal(f"config.mesh.{name}", size, allowed))
      if trial.config.on_nonfinite != "stop":
        allowed = "stop: a sweep counts a run that is not finite as diverged"
        raise ConfigError(refusal("config.on_nonfinite", "skip", allowed))
    except ConfigError as error:
      name = f"{trial.variant} {trial.label}".strip()
      raise ConfigError(f"In the sweep's {name}:\n{error}") from error
