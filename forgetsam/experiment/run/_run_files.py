"""What a run writes into its folder beside checkpoints: small JSON files."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import config_dict

from forgetsam.experiment.config import (
  ConfigError,
  config_from_dict,
  config_to_dict,
  differing_keys,
)

CONFIG, SUMMARY, EVALUATION = "config.json", "summary.json", "evaluation.json"
CHECKPOINTS = "checkpoints"


class CheckpointError(ValueError):
  """No checkpoint of a folder can be used."""


def write_json(path: Path, values: Mapping[str, Any]) -> None:
  """Writes a file whole or not at all."""
  draft = path.with_name(path.name + ".draft")
  draft.write_text(json.dumps(values, indent=2) + "\n")
  os.replace(draft, path)


def read_json(path: Path) -> dict[str, Any] | None:
  """The file's content, or None where there is no file."""
  if not path.is_file():
    return None
  try:
    return dict(json.loads(path.read_text()))
  except (ValueError, TypeError) as error:
    raise _not_ours(path, error) from error


def _not_ours(path: Path, error: Exception) -> ConfigError:
  return ConfigError(
    f"{path} is refused: it is not what a run wrote, {error}\n"
    "  allowed: the file as it was, or another --workdir"
  )


def saved_steps(workdir: Path) -> list[int]:
  """The steps of the checkpoints in a folder, ascending, whole or not."""
  found = (path.name for path in workdir.glob(f"{CHECKPOINTS}/*"))
  return sorted(int(name) for name in found if name.isdecimal())


def claim_workdir(workdir: Path, config: config_dict.ConfigDict) -> None:
  """Notes the configuration in a folder, once it is known that it can run.

  Raises:
    ConfigError: the folder cannot be written to.
  """
  try:
    write_json(workdir / CONFIG, config_to_dict(config))
  except OSError as error:
    raise _unusable(workdir, error) from error


def check_workdir(workdir: Path, config: config_dict.ConfigDict) -> None:
  """Makes a folder, or compares the configuration with that of its run.

  Raises:
    ConfigError: the folder cannot be made, or belongs to a run of another
      configuration.
  """
  try:
    workdir.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise _unusable(workdir, error) from error
  old = read_json(workdir / CONFIG)
  if old is not None:
    refuse_other_config(workdir, old, config_to_dict(config))


def _unusable(workdir: Path, error: OSError) -> ConfigError:
  return ConfigError(
    f"--workdir={workdir} is refused: {error}\n"
    "  allowed: a folder that can be written to"
  )


def refuse_other_config(
  workdir: Path, old: Mapping[str, Any], new: Mapping[str, Any]
) -> None:
  """Raises a `ConfigError` that names the keys in which two runs differ."""
  differing = differing_keys(old, new)
  if differing:
    lines = [
      f"config.{key}={after!r} is refused\n  allowed: {before!r}, as in "
      f"{workdir / CONFIG}; or another --workdir"
      for key, (before, after) in differing.items()
    ]
    raise ConfigError("\n".join(lines))


def load_config(workdir: Path) -> config_dict.ConfigDict:
  """The configuration of the run in a folder.

  Raises:
    ConfigError: no run has started there.
  """
  values = read_json(workdir / CONFIG)
  if values is None:
    raise ConfigError(
      f"--workdir={workdir} is refused: it has no {CONFIG}\n"
      "  allowed: the folder of a run"
    )
  try:
    return config_from_dict(values)
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    # Names that no configuration can hold, such as those of its methods.
    raise _not_ours(workdir / CONFIG, error) from error
