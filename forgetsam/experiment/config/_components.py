"""From the names of a configuration to the components that they choose.

A name is built in, or `module:attribute`. Of either, the attribute is a
factory, and is called with the options and with those of the offered arguments
that its signature names. A function that these do not complete is the component
itself, where the kind has functions. An instance is taken as it is.
"""

import functools
import inspect
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import config_dict

from forgetsam.experiment.config._errors import (
  ConfigError,
  cause,
  closest,
  refusal,
)
from forgetsam.experiment.config._keys import KEYS
from forgetsam.experiment.config._kinds import KINDS, Kind
from forgetsam.experiment.config._modules import (
  find_attribute,
  folders_of,
  is_module_attribute,
  search_folders,
)

_ANY = inspect.Parameter("options", inspect.Parameter.VAR_KEYWORD)


class Call(NamedTuple):
  """A component as it is named, and the arguments that it is given."""

  name: str
  found: Any
  is_made: bool  # an instance
  options: dict[str, Any]
  parameters: dict[str, inspect.Parameter]
  takes_any: bool  # **options
  arguments: dict[str, Any]

  def missing(self) -> list[str]:
    """Arguments that the signature requires, and nothing gives."""
    required = {
      name: p for name, p in self.parameters.items() if p.default is p.empty
    }
    return [
      name
      for name, p in required.items()
      if name not in self.arguments or p.kind is p.POSITIONAL_ONLY
    ]


def build_component(
  config: config_dict.ConfigDict, kind: str, **offers: Any
) -> Any:
  """Builds the component of a kind that a configuration names.

  Args:
    config: a checked configuration; its numbers may be traced.
    kind: a key of `KINDS`.
    **offers: the arguments that the program has for it, as the kind lists them.

  Returns:
    The component; None where the name is none.

  Raises:
    ConfigError: the name, or what it makes, is refused.
  """
  row = KINDS[kind]
  call = resolve(config, row, offers)
  result = call.found if call.is_made else _made(row, call, config.modules)
  none = result is None and call.name == "none"
  if not none and not row.fits(result):
    allowed = (
      f"the name of {row.noun}, or of what makes one; this makes "
      f"{type(result).__name__} {str(result)[:60]!r}"
    )
    raise ConfigError(refusal(f"config.{row.key}", call.name, allowed))
  if kind in ("loss", "ascent") and not isinstance(result, Hashable):
    return functools.partial(result)  # as a key of compiled programs
  return result


def own_components(config: config_dict.ConfigDict) -> dict[str, str]:
  """The keys of components of the user's own, or with options, and their names.

  Data sets are not among them: what they give is checked on its own.
  """
  return {
    row.key: read_key(config, row.key)
    for kind, row in KINDS.items()
    if kind != "data"
    and (
      is_module_attribute(read_key(config, row.key))
      or chosen_options(config, row.options)
    )
  }


def chosen_options(
  config: config_dict.ConfigDict, group: str
) -> dict[str, Any]:
  """The free options of a group, with lists as tuples."""
  found = read_key(config, group, None) or {}
  return {key: _plain(value) for key, value in found.items()}


def with_found_modules(
  config: config_dict.ConfigDict,
) -> config_dict.ConfigDict:
  """The configuration with the folders of its modules, found in this place.

  Args:
    config: a checked configuration.

  Returns:
    A copy from which another working directory finds the same modules.
  """
  names = [read_key(config, row.key) for row in KINDS.values()]
  found = folders_of(names, config.modules)
  config = config.copy_and_resolve_references()
  config.modules = found or None
  return config


def _plain(value: Any) -> Any:
  if isinstance(value, Mapping | config_dict.ConfigDict):
    return {k: _plain(v) for k, v in value.items()}
  if isinstance(value, list | tuple):
    return tuple(map(_plain, value))
  return value


def read_key(config: config_dict.ConfigDict, key: str, *default: Any) -> Any:
  """The value of a key, such as `perturbation.rho`."""
  *groups, name = key.split(".")
  return getattr(functools.reduce(getattr, groups, config), name, *default)


def _find(config: config_dict.ConfigDict, row: Kind) -> tuple[str, Any]:
  name, key = read_key(config, row.key), f"config.{row.key}"
  if is_module_attribute(name):
    return name, find_attribute(key, name, config.modules)
  builtin = row.builtin()
  if name not in builtin:
    allowed = f"{KEYS[row.key].allowed}; {closest(name, builtin, 'name')}"
    raise ConfigError(refusal(key, name, allowed))
  return name, builtin[name]


def resolve(
  config: config_dict.ConfigDict, row: Kind, offers: Mapping[str, Any]
) -> Call:
  """Collects the arguments that the signature names, and the options."""
  name, found = _find(config, row)
  options = chosen_options(config, row.options)
  can_make = inspect.isclass(found) or inspect.isroutine(found) or row.takes
  is_made = not callable(found) or (not can_make and row.fits(found))
  if is_made:
    return Call(name, found, True, options, {}, False, {})
  parameters = _parameters(found)
  takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
  parameters = {
    n: p
    for n, p in parameters.items()
    if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
  }
  if {"parent", "name"} <= parameters.keys():  # of Linen
    del parameters["parent"], parameters["name"]
  arguments: dict[str, Any] = {}
  own = row.own.get(name, ())
  for argument in [*parameters, *(row.gives if takes_any else ())]:
    if argument in offers:
      arguments[argument] = offers[argument]
    elif argument in row.gives and argument not in own:
      key = row.gives[argument]
      if argument not in parameters and KEYS[key].default is not None:
        continue  # **options has what was set
      # A file's own `config.model` need not have each option of each model.
      if (value := read_key(config, key, None)) is not None:
        arguments[argument] = value
  arguments |= {
    n: v for n, v in options.items() if n in parameters or takes_any
  }
  return Call(name, found, False, options, parameters, takes_any, arguments)


def _parameters(found: Any) -> dict[str, inspect.Parameter]:
  hides = inspect.isclass(found) and type(found).__call__ is not type.__call__
  try:  # NNX's metaclass hides those of a class
    called = functools.partial(found.__init__, None) if hides else found
    return dict(inspect.signature(called).parameters)
  except (TypeError, ValueError):  # some of C's have no signature
    return {"options": _ANY}


def _made(row: Kind, call: Call, folders: Sequence[str] | None) -> Any:
  """Calls the factory, or binds the arguments of the component itself."""
  key, found = f"config.{row.key}", call.found
  if missing := call.missing():
    # What is built in is made by its name's function.
    own = is_module_attribute(call.name)
    if own and row.takes and not inspect.isclass(found):
      try:
        inspect.signature(found).bind(*row.takes, **call.arguments)
        return functools.partial(found, **call.arguments)
      except TypeError:
        pass
    name = _first_missing(row, missing)
    giver = row.gives.get(name)
    without = f"config.{giver} is None" if giver else "no key gives it"
    raise ConfigError(
      f"config.{row.options}.{name} is missing\n  allowed: a value: "
      f"{call.name} needs it, and {without}"
    )
  try:
    return row.make(found, call.arguments)
  except ConfigError:
    raise
  except (Exception, SystemExit) as error:
    failure = cause(error, *search_folders(folders))
    allowed = f"what can be built; {call.name} {failure}"
    raise ConfigError(refusal(key, call.name, allowed)) from error


def _first_missing(row: Kind, missing: list[str]) -> str:
  """The first that is no argument of the component itself, of any name."""
  others = [name for name in missing if name not in row.takes]
  if others == missing:
    others = missing[len(row.takes) :]
  return (others or missing)[0]
