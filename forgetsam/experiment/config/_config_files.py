"""Files of configurations: Python programs that define `get_config`."""

import os
import re
import runpy
from pathlib import Path
from typing import Any

from ml_collections import config_dict

from forgetsam.experiment.config._errors import (
  ConfigError,
  cause,
  path_of_flag,
  refusal,
)
from forgetsam.experiment.config._json import typed_config


def split_config(argument: str) -> tuple[str, str | None]:
  """FILE and VARIANT of `FILE:VARIANT`, where FILE may have a colon, too."""
  match = re.fullmatch(r"(.*?\.py)(?::(.*))?", argument, re.DOTALL)
  if match is not None:
    return match[1], match[2]
  file, colon, variant = argument.partition(":")
  return file, variant if colon else None


def run_config_file(argument: str, name: str) -> Any:
  """Runs the file of a `--config`, and takes a name that it defines.

  Args:
    argument: FILE or FILE:VARIANT.
    name: `get_config` or `STUDY`.

  Raises:
    ConfigError: there is no such file, it fails, or it lacks the name.
  """
  file, _ = split_config(argument)
  path = path_of_flag("--config", file)
  if not path.is_file():
    allowed = f"an existing file{_beside(path, name)}"
    raise ConfigError(refusal("--config", argument, allowed))
  try:
    found = runpy.run_path(str(path)).get(name)
  except Exception as error:
    raise _failed(argument, path, error) from error
  if found is None:
    allowed = f"a file that defines {name}{_beside(path, name)}"
    raise ConfigError(refusal("--config", argument, allowed))
  return found


def load_config_file(argument: str) -> config_dict.ConfigDict:
  """Runs `get_config(VARIANT)` of `FILE.py:VARIANT`."""
  get_config = run_config_file(argument, "get_config")
  file, variant = split_config(argument)
  try:
    config = get_config(*([variant] if variant else []))
  except (TypeError, ValueError) as error:
    raise ConfigError(refusal("--config", argument, str(error))) from error
  except Exception as error:
    raise _failed(argument, path_of_flag("--config", file), error) from error
  if not isinstance(config, config_dict.ConfigDict):
    found = type(config).__name__
    allowed = f"a file whose get_config returns a ConfigDict, not a {found}"
    raise ConfigError(refusal("--config", argument, allowed))
  config = typed_config(config)
  if config.get("modules") is None and "modules" in config:
    folder = path_of_flag("--config", file).resolve().parent
    config.modules = (str(folder),)
  return config


def _beside(path: Path, name: str) -> str:
  """The files in a path's folder that define a name."""
  folder = path.parent
  if not folder.is_dir():
    return f"; there is no folder {folder}"
  pattern = re.compile(rf"^(def )?{name}\b", re.MULTILINE)
  found = [
    str(file)
    for file in sorted(folder.glob("*.py"))
    if os.access(file, os.R_OK)
    and pattern.search(file.read_text(errors="replace"))
  ]
  return f"; there are {', '.join(found)}" if found else f"; {folder} has none"


def _failed(argument: str, path: Path, error: Exception) -> ConfigError:
  allowed = f"a program that runs; this one {cause(error, path)}"
  return ConfigError(refusal("--config", argument, allowed))
