"""A run's folder: its small JSON files, and the lock of its holder."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import filelock
from ml_collections import config_dict

from forgetsam._paths import is_utf8, mistaken_scheme
from forgetsam.experiment.config import (
  ConfigError,
  config_from_dict,
  config_to_dict,
  differing_keys,
  refusal,
  with_absent,
  with_found_modules,
)
from forgetsam.experiment.run._processes import on_main

CONFIG, SUMMARY, EVALUATION = "config.json", "summary.json", "evaluation.json"
CHECKPOINTS = "checkpoints"

# orbax looks for what it has written with `glob`, finds nothing behind these,
# and says nothing; tensorstore takes no backslash.
_UNREADABLE, _UNWRITABLE = "\\", "\\[*?"
_LONGEST = 3840  # bytes; the system's limit is 4096 for the longest file


class CheckpointError(ValueError):
  """No checkpoint of a folder can be used."""


def write_text(path: Path, text: str) -> None:
  """Writes a file whole or not at all."""
  draft = path.with_name(path.name + ".draft")
  draft.write_text(text)
  os.replace(draft, path)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
  """Does the same with an object."""
  write_text(path, json.dumps(values, indent=2) + "\n")


def read_json(path: Path, **kinds: type) -> dict[str, Any] | None:
  """The file's content, or None where there is no file.

  Args:
    path: the file.
    **kinds: keys that it must have, and the types of their values.

  Raises:
    ConfigError: the file holds no JSON object, or not what it must.
  """
  if not path.exists():
    return None
  try:
    values = dict(json.loads(path.read_text()))
  except (OSError, ValueError, TypeError) as error:
    raise _not_ours(path, error) from error
  for key, kind in kinds.items():
    if not isinstance(values.get(key), kind):
      text = f"without {key!r}, of type {kind.__name__}"
      raise _not_ours(path, ValueError(text))
  return values


def _not_ours(path: Path, error: Exception) -> ConfigError:
  return ConfigError(
    f"{path} is refused: it is not what a run wrote, {error}\n"
    "  allowed: the file as it was, or another --workdir"
  )


def saved_steps(workdir: Path) -> list[int]:
  """The steps of the checkpoints in a folder, ascending, whole or not."""
  try:
    found = os.listdir(workdir / CHECKPOINTS)
  except OSError:
    return []
  return sorted(int(name) for name in found if name.isdecimal())


def storage_problem(folder: Path, *, writes: bool) -> str | None:
  """Says which path would do, if checkpoints cannot be kept in a folder."""
  path, refused = str(folder.absolute()), _UNWRITABLE if writes else _UNREADABLE
  if (scheme := mistaken_scheme(folder)) is not None:
    return f"a folder not below /{scheme}, which orbax takes for {scheme}://"
  if "gs:/" in f"{path}/":
    return "a folder whose path has no gs:/, which orbax takes for gs://"
  too_long = writes and len(os.fsencode(path)) > _LONGEST
  if is_utf8(path) and not too_long and not set(refused) & set(path):
    return None
  return (
    f"a folder whose whole path has at most {_LONGEST} bytes, in UTF-8, and "
    f"none of {' '.join(refused)} (checkpoints are lost there, in {path!r})"
  )


def check_folder(folder: Path, flag: str = "--workdir") -> None:
  """Makes a folder where there is none, and tries to write to it.

  Raises:
    ConfigError: it cannot be written to.
  """
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      pass
  except OSError as error:
    raise _unusable(folder, error, flag) from error


def check_workdir(workdir: Path, config: config_dict.ConfigDict) -> None:
  """Makes a folder, or compares the configuration with that of its run.

  Raises:
    ConfigError: the folder cannot be made or hold checkpoints, or belongs to a
      run of another configuration.
  """
  if (allowed := storage_problem(workdir, writes=True)) is not None:
    raise ConfigError(refusal("--workdir", str(workdir), allowed))
  try:
    workdir.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise _unusable(workdir, error) from error
  old = read_json(workdir / CONFIG)
  if old is not None:
    _refuse_difference(workdir, old, config)


def claim_workdir(workdir: Path, config: config_dict.ConfigDict) -> None:
  """Writes the configuration into a folder that has none.

  Raises:
    ConfigError: the folder cannot be written to.
  """
  if (workdir / CONFIG).exists():
    return
  try:
    values = config_to_dict(with_found_modules(config))
    write_json(workdir / CONFIG, values)
  except OSError as error:
    raise _unusable(workdir, error) from error


def check_saved(workdir: Path, config: config_dict.ConfigDict) -> None:
  """Refuses folders that a job cannot measure a run in, and write to.

  Raises:
    ConfigError: the folder's run has another configuration, or saved nothing,
      or the folder cannot be written to.
  """
  old = config_to_dict(load_config(workdir))
  _refuse_difference(workdir, old, config)
  if not (workdir / CHECKPOINTS).is_dir():
    raise ConfigError(
      f"--workdir={workdir} is refused: it has no checkpoint yet\n"
      "  allowed: the folder of a run that has saved one"
    )
  if (allowed := storage_problem(workdir, writes=False)) is not None:
    raise ConfigError(refusal("--workdir", str(workdir), allowed))
  check_folder(workdir)


def _refuse_difference(
  workdir: Path, old: Mapping[str, Any], config: config_dict.ConfigDict
) -> None:
  lines = [
    f"config.{key}={after!r} is refused\n  allowed: {before!r}, as in "
    f"{workdir / CONFIG}; or another --workdir"
    for key, (before, after) in differing_keys(
      old, config_to_dict(config)
    ).items()
  ]
  if lines:
    raise ConfigError("\n".join(lines))


def read_config(workdir: Path) -> tuple[dict[str, Any], dict[str, Any]]:
  """As `with_absent` gives them; empty where no run has started."""
  values = read_json(workdir / CONFIG)
  try:
    return ({}, {}) if values is None else with_absent(values)
  except (KeyError, TypeError, ValueError) as error:
    raise _not_ours(workdir / CONFIG, error) from error


def load_config(workdir: Path) -> config_dict.ConfigDict:
  """The configuration of the run in a folder.

  Raises:
    ConfigError: no run has started there.
  """
  values, _ = read_config(workdir)
  if not values:
    raise ConfigError(
      f"--workdir={workdir} is refused: it has no {CONFIG}\n"
      "  allowed: the folder of a run"
    )
  try:
    return config_from_dict(values)
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    # Names that no configuration can hold, such as those of its methods.
    raise _not_ours(workdir / CONFIG, error) from error


class WorkdirLock:
  """Locks a folder for one run; the system unlocks it when its holder dies.

  Process 0 holds it for all processes. Where the file system knows no locks,
  nothing is refused.

  Args:
    workdir: a folder that exists and can be written to.

  Raises:
    ConfigError: another run holds it.
  """

  def __init__(self, workdir: Path):
    self._lock = filelock.FileLock(workdir / ".lock", timeout=0)
    self._holder = workdir / ".lock.pid"  # locking may empty the lock's file
    on_main(lambda: self._acquire(workdir))

  def _acquire(self, workdir: Path) -> None:
    try:
      self._holder.touch()
    except OSError as error:
      raise _unusable(workdir, error) from error
    try:
      self._lock.acquire()
    except filelock.Timeout as error:
      holder = self._holder.read_text() or "unknown"
      text = f"a folder that no other run uses; process {holder} trains in it"
      raise ConfigError(refusal("--workdir", str(workdir), text)) from error
    except (OSError, NotImplementedError):  # no locks here
      return
    self._holder.write_text(f"{os.getpid()}")

  def __enter__(self) -> "WorkdirLock":
    return self

  def __exit__(self, *_: object) -> None:
    self._lock.release()


def _unusable(
  folder: Path, error: OSError, flag: str = "--workdir"
) -> ConfigError:
  return ConfigError(
    f"{flag}={folder} is refused: {error}\n"
    "  allowed: a folder that can be written to"
  )
