"""Free options: the arguments of what a `*.name` chooses, under its group."""

import ast
import math
from collections.abc import Mapping
from typing import Any

from ml_collections import config_dict

from forgetsam.experiment.config._errors import ConfigError, refusal
from forgetsam.experiment.config._keys import KEYS
from forgetsam.experiment.config._rules import Key, Rule


def _arguments(of: str, **flags: bool) -> Key:
  row = Key(None, Rule(object, "a JSON value"), f"Argument of what {of} names")
  return row._replace(**{"traced": True, **flags})  # type: ignore[arg-type]


OPTIONS: Mapping[str, Key] = {
  "model.options": _arguments("model.name"),
  "data.options": _arguments("data.name", compiled=False, tuned=False),
  "augmentation.options": _arguments("augmentation.name"),
  "loss.options": _arguments("loss.name"),
  "ascent.options": _arguments("ascent.name", perturbs=True),
  "perturbation.options": _arguments("perturbation.name", perturbs=True),
  "perturbation.rho_options": _arguments(
    "perturbation.rho_schedule", perturbs=True
  ),
  "method.options": _arguments("method.name", perturbs=True),
  "combine.options": _arguments("combine.name", perturbs=True),
  "optimizer.options": _arguments("optimizer.name"),
  "schedule.options": _arguments("schedule.name"),
  "metric.options": _arguments("metric.name", traced=False),
}


def option_row(key: str) -> Key | None:
  """The row of a free option; None for other keys."""
  groups = [g for g in OPTIONS if key.startswith(f"{g}.")]
  return OPTIONS[groups[0]] if groups else None


def row_of(key: str) -> Key | None:
  """The row of a key of the table or of a free option; None where unknown."""
  return KEYS.get(key) or option_row(key)


def is_model_option(key: str) -> bool:
  """Whether the key is an option that the chosen model defines."""
  group, _, name = key.partition(".")
  return group == "model" and name != "name" and not option_row(key)


def is_optional(key: str) -> bool:
  """Whether the key may be none; a model's own default then holds."""
  return is_model_option(key) or (key in KEYS and KEYS[key].default is None)


def parse_option(key: str, text: str | None, *, negated: bool) -> Any:
  """The value of a free option as typed: a literal, or else a string.

  Args:
    key: the full key, for errors.
    text: what follows the `=`; None without one, as in `--config.KEY`.
    negated: whether it was `--noconfig.KEY`.

  Raises:
    ConfigError: an object was typed, whose keys have flags of their own.

  Example:
    >>> [parse_option("", t, negated=False) for t in ("12", "(3,)", "relu")]
    [12, (3,), 'relu']
  """
  if text is None:
    return not negated
  words = {"none": None, "true": True, "false": False}
  if text.lower() in words:
    return words[text.lower()]
  try:
    value = ast.literal_eval(text)
  except (SyntaxError, ValueError):
    try:
      value = float(text)  # inf and nan, which are refused later
    except ValueError:
      return text
  if isinstance(value, dict):
    allowed = f"one flag for each of its keys, such as --{key}.NAME=VALUE"
    raise ConfigError(refusal(key, text, allowed))
  return value


def set_option(config: config_dict.ConfigDict, key: str, value: Any) -> None:
  """Sets a free option in place, of whatever type it was before."""
  *parents, name = key.split(".")
  holder = config
  with config.unlocked(), config.ignore_type():
    for parent in parents:
      if not isinstance(holder.get(parent), config_dict.ConfigDict):
        holder[parent] = config_dict.ConfigDict()
      holder = holder[parent]
    with holder.unlocked(), holder.ignore_type():
      holder[name] = value


def with_groups(config: config_dict.ConfigDict) -> config_dict.ConfigDict:
  """Adds the groups of options that are missing, in place."""
  for group in OPTIONS:
    *parents, name = group.split(".")
    holder = config
    for parent in parents:
      holder = holder.get(parent, config_dict.ConfigDict())
    if name not in holder:
      with holder.unlocked():
        holder[name] = config_dict.ConfigDict()
  return config


def is_json(value: Any) -> bool:
  """Whether JSON keeps a value, with lists for tuples."""
  if isinstance(value, float):
    return math.isfinite(value)
  if isinstance(value, list | tuple):
    return all(map(is_json, value))
  return value is None or isinstance(value, bool | int | str)
