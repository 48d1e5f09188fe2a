"""Loads what `module:attribute` names, from a user's folders or Python's path.

Modules of one name in two folders are two modules: each folder keeps its own.
"""

import contextlib
import importlib
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import logging

from forgetsam.experiment.config._errors import (
  ConfigError,
  cause,
  closest,
  refusal,
)

_DOTTED = r"[^\W\d]\w*(\.[^\W\d]\w*)*"
_NAMED = re.compile(f"{_DOTTED}:{_DOTTED}")
# TFDS's prefix of the Hub's sets.
_NOT_A_MODULE = ("huggingface",)

# What was imported from each folder, by full name.
_LOADED: dict[str, dict[str, ModuleType]] = {}


def is_module_attribute(name: str) -> bool:
  """Whether a name is `module:attribute`, rather than one of the built-in."""
  known = name.partition(":")[0] in _NOT_A_MODULE
  return not known and _NAMED.fullmatch(name) is not None


def find_attribute(key: str, name: str, folders: Sequence[str] | None) -> Any:
  """Loads the attribute that a key of the configuration names.

  Args:
    key: the key with `config.`, for errors.
    name: `module:attribute`; both may have dots, as in `package.module:A.b`.
    folders: where to look first; then come the working directory and Python's
      path.

  Returns:
    The attribute.

  Raises:
    ConfigError: there is no such module or attribute, or the module fails.
  """
  module, _, path = name.partition(":")
  places = search_folders(folders)
  folder = _folder_of(module, places)
  try:
    found: Any = _load(module, folder)
  except (Exception, SystemExit) as error:
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing and f"{module}.".startswith(f"{missing}."):
      allowed = (
        f"a module that can be imported; {missing!r} is neither in "
        f"{', '.join(places)} nor on Python's path"
      )
    else:
      place = f" in {folder}" if folder else ""
      allowed = f"a module that runs; {module}{place} {cause(error, folder)}"
    raise ConfigError(refusal(key, name, allowed)) from error
  holder = module
  for part in path.split("."):
    if not hasattr(found, part):
      known = [n for n in dir(found) if not n.startswith("_")]
      allowed = f"a name in {holder}, which has no {part!r}"
      if known:
        allowed += f"; {closest(part, known, 'name')}"
      raise ConfigError(refusal(key, name, allowed))
    found, holder = getattr(found, part), f"{holder}.{part}"
  return found


def search_folders(folders: Sequence[str] | None) -> list[str]:
  """The folders to look in before Python's path, each once."""
  places = [*(folders or ()), "."]
  return list(dict.fromkeys(str(Path(place).resolve()) for place in places))


def folders_of(
  names: Sequence[str], folders: Sequence[str] | None
) -> tuple[str, ...]:
  """The user's folders in which the modules of these names are found.

  Libraries are not among them: they are found wherever they are installed.
  """
  libraries = {str(Path(p).resolve()) for p in sysconfig.get_paths().values()}
  places = search_folders([*(folders or ()), ".", *sys.path])
  found = {
    _folder_of(name.partition(":")[0], places)
    for name in names
    if is_module_attribute(name)
  }
  return tuple(p for p in places if p in found - libraries)


def _folder_of(module: str, places: Sequence[str]) -> str | None:
  top = module.partition(".")[0]
  if top == "forgetsam":  # this one, not another checkout
    return None
  return next((p for p in places if _spec(top, p) or _spec(module, p)), None)


def _spec(module: str, folder: str) -> ModuleSpec | None:
  """A folder's module, found without importing anything."""
  names, path = module.split("."), [folder]
  spec = None
  for i in range(len(names)):
    spec = PathFinder.find_spec(".".join(names[: i + 1]), path)
    if spec is None:
      return None
    path = list(spec.submodule_search_locations or [])
  # A folder without __init__.py holds modules, and is none.
  return spec if spec is not None and spec.origin is not None else None


def _load(name: str, folder: str | None) -> ModuleType:
  """Imports a module as Python would if `folder` came first on its path."""
  own = _LOADED.get(folder, {}) if folder else {}
  if name in own:
    return own[name]
  with imports_from(folder, name.partition(".")[0]):
    return importlib.import_module(name)


@contextlib.contextmanager
def imports_from(folder: str | None, top: str | None = None) -> Iterator[None]:
  """Finds imports in a folder and the working directory first.

  Args:
    folder: the folder, whose modules of before are there again, and those of
      other folders not; None takes Python's path as it is.
    top: a module that is to be the folder's own even where Python has another
      of that name.
  """
  own = _LOADED.setdefault(folder, {}) if folder else {}
  others = {n for f, loaded in _LOADED.items() if f != folder for n in loaded}
  hidden = _take_out(others)
  shadowed: dict[str, ModuleType] = {}
  if folder and top and top not in own and _shadows(top, folder):
    shadowed = _take_out(
      n for n in sys.modules if f"{n}.".startswith(f"{top}.")
    )
  before = {n.partition(".")[0] for n in sys.modules}
  sys.modules.update(own)
  importlib.invalidate_caches()
  path = list(sys.path)
  try:
    sys.path[:0] = [folder, str(Path.cwd())] if folder else []
    yield
  finally:
    sys.path[:] = path
    new = [n for n in sys.modules if n.partition(".")[0] not in before]
    if folder:
      own |= {n: sys.modules[n] for n in new if _spec(n, folder) is not None}
    for n, module in hidden.items():
      sys.modules.setdefault(n, module)
    sys.modules.update(shadowed)


def _shadows(top: str, folder: str) -> bool:
  """Whether a folder's module stands before another of the same name."""
  here = PathFinder.find_spec(top, [folder])
  known = sys.modules.get(top)
  other = PathFinder.find_spec(top) if known is None else known.__spec__
  if here is None or other is None or _origin(here) == _origin(other):
    return False
  logging.warning(
    "%s is taken from %s, not from %s", top, _origin(here), _origin(other)
  )
  return True


def _origin(spec: ModuleSpec) -> str | None:
  return spec.origin and str(Path(spec.origin).resolve())


def _take_out(names: Iterable[str]) -> dict[str, ModuleType]:
  """Removes modules from `sys.modules`, and returns them."""
  return {n: sys.modules.pop(n) for n in list(names) if n in sys.modules}
