"""Files of configurations: Python programs that define `get_config`."""

import inspect
import os
import re
import runpy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
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
from forgetsam.experiment.config._modules import imports_from
from forgetsam.experiment.config._recipes import UnknownVariantError


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
    with _imports_beside(path):
      found = runpy.run_path(str(path)).get(name)
  except (Exception, SystemExit) as error:
    raise _failed(argument, path, error) from error
  if found is None:
    allowed = f"a file that defines {name}{_beside(path, name)}"
    raise ConfigError(refusal("--config", argument, allowed))
  return found


def load_config_file(argument: str) -> config_dict.ConfigDict:
  """Runs `get_config(VARIANT)` of `FILE.py:VARIANT`, or `get_config()`."""
  get_config = run_config_file(argument, "get_config")
  file, variant = split_config(argument)
  if variant == "":
    raise no_variant(argument)
  path = path_of_flag("--config", file)
  try:
    with _imports_beside(path):
      config = _choose(get_config, *([] if variant is None else [variant]))
  except (TypeError, ValueError) as error:
    raise ConfigError(refusal("--config", argument, str(error))) from error
  except (Exception, SystemExit) as error:
    raise _failed(argument, path, error) from error
  if not isinstance(config, config_dict.ConfigDict):
    found = type(config).__name__
    allowed = f"a file whose get_config returns a ConfigDict, not a {found}"
    raise ConfigError(refusal("--config", argument, allowed))
  config = typed_config(config)
  if config.get("modules") is None and "modules" in config:
    config.modules = (str(path.resolve().parent),)
  return config


def no_variant(argument: str) -> ConfigError:
  """The refusal of `FILE:`, which lists the file's variants."""
  allowed = (
    "FILE alone, or FILE:VARIANT; variants of this file: "
    f"{variants_of(argument)}"
  )
  return ConfigError(refusal("--config", argument, allowed))


def variants_of(argument: str) -> str:
  """The variants of a `--config`'s file, as its own refusal lists them."""
  get_config = run_config_file(argument, "get_config")
  parameters = list(inspect.signature(get_config).parameters.values())
  if not parameters:
    return "none"
  try:
    with _imports_beside(path_of_flag("--config", split_config(argument)[0])):
      _choose(get_config, "")
  except UnknownVariantError as error:
    default = parameters[0].default
    named = default if default in error.variants else None
    return ", ".join(
      f"{name} (FILE alone)" if name == named else name
      for name in error.variants
    )
  except Exception as error:
    return str(error).rpartition("allowed: ")[2]
  return "any that its get_config takes"


def _imports_beside(path: Path) -> AbstractContextManager[None]:
  return imports_from(str(path.resolve().parent))


def _choose(get_config: Callable[..., Any], *variant: str) -> Any:
  try:
    return get_config(*variant)
  except KeyError as error:
    names = getattr(get_config, "__globals__", {}).get("VARIANTS")
    if variant and error.args == variant and isinstance(names, Mapping):
      raise UnknownVariantError(variant[0], names) from error
    raise


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


def _failed(argument: str, path: Path, error: BaseException) -> ConfigError:
  allowed = f"a program that runs; this one {cause(error, path)}"
  return ConfigError(refusal("--config", argument, allowed))
