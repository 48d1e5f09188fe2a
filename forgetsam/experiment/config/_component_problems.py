"""Refuses components that cannot be built, and options that nothing reads."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import config_dict

from forgetsam.experiment.config._components import (
  Call,
  build_component,
  read_key,
  resolve,
)
from forgetsam.experiment.config._errors import (
  ConfigError,
  cause,
  closest,
  refusal,
)
from forgetsam.experiment.config._keys import KEYS
from forgetsam.experiment.config._kinds import KINDS, Kind
from forgetsam.experiment.config._modules import is_module_attribute


def component_problems(config: config_dict.ConfigDict) -> Iterator[str]:
  """Yields a refusal for each component that cannot be built."""
  for kind, row in KINDS.items():
    foreign = is_module_attribute(read_key(config, row.key))
    if kind in ("model", "data") and not foreign:
      continue  # their own checks know the names
    try:
      call = resolve(config, row, row.offers)
      problems = list(_option_problems(config, row, call))
      problems += _idle_problems(config, row, call, foreign)
      problems += _unread_problems(config, row, call)
      yield from problems
      if not problems and kind != "data":
        _check_made(kind, call, build_component(config, kind, **row.offers))
    except ConfigError as error:
      yield str(error)


def _option_problems(
  config: config_dict.ConfigDict, row: Kind, call: Call
) -> Iterator[str]:
  known = [n for n in call.parameters if n not in row.offers]
  for option, value in call.options.items():
    key = f"config.{row.options}.{option}"
    if call.is_made:
      yield refusal(key, value, f"left out: {call.name} is made already")
    elif option not in call.parameters and not call.takes_any:
      hint = closest(option, known, "option") if known else "it has none"
      yield refusal(key, value, f"an option of {call.name}; {hint}")
    elif option in row.offers:
      yield refusal(key, value, f"left out: training gives {call.name} its own")
    elif option in row.gives and option not in row.own.get(call.name, ()):
      other = row.gives[option]
      if (twice := read_key(config, other)) != KEYS[other].default:
        allowed = f"left out where config.{other}={twice!r} gives it"
        yield refusal(key, value, allowed)


def _idle_problems(
  config: config_dict.ConfigDict, row: Kind, call: Call, foreign: bool
) -> Iterator[str]:
  """Yields a refusal for each set key that the component does not read."""
  if call.takes_any or call.name in row.ignores:
    return
  if not foreign and row.key not in ("optimizer.name", "schedule.name"):
    return
  for key in dict.fromkeys(row.gives.values()):
    names = [n for n, k in row.gives.items() if k == key]
    value, default = read_key(config, key), KEYS[key].default
    idle = not (set(names) & call.parameters.keys() or key in row.ignores)
    if idle and value not in (default, 0):
      allowed = f"{default} or 0" if default else f"{default}"
      allowed += f" where config.{row.key}={call.name}: it takes no {names[0]}"
      yield refusal(f"config.{key}", value, allowed)


def _unread_problems(
  config: config_dict.ConfigDict, row: Kind, call: Call
) -> Iterator[str]:
  """Yields a refusal for each key of an offer that the factory leaves out."""
  for offer, needed in row.needs.items():
    if call.takes_any or offer in call.parameters:
      continue
    for key, value in needed.items():
      if (found := read_key(config, key)) != value:
        allowed = f"{value} where config.{row.key}={call.name}: it takes no"
        yield refusal(f"config.{key}", found, f"{allowed} {offer}")


def _check_made(kind: str, call: Call, made: Any) -> None:
  """Refuses optimizers of optax that need more than gradients."""
  known = call.name in KINDS["optimizer"].ignores
  if kind != "optimizer" or known or is_module_attribute(call.name):
    return
  params = {"kernel": jnp.zeros((2, 2))}
  try:
    jax.eval_shape(lambda p: made.update(p, made.init(p), p), params)
  except Exception as error:
    allowed = (
      f"an optimizer that takes gradients alone; this one {cause(error)}"
    )
    raise ConfigError(
      refusal("config.optimizer.name", call.name, allowed)
    ) from error
