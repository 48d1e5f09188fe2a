"""Separates the numbers that a compiled program takes from its shape."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import config_dict

from forgetsam.experiment.config import KEYS, config_from_dict, config_to_dict

# The factories that these reach accept traced numbers. Other keys that are
# compiled give the program its shape: names, sizes, counts of steps.
TRACED = tuple(key for key, row in KEYS.items() if row.traced)
_NOT_COMPILED = {key for key, row in KEYS.items() if not row.compiled}


class Parts(NamedTuple):
  """A configuration, taken apart for compilation.

  Attributes:
    numbers: the traced keys that are set, and their values.
    frame: the whole configuration as nested dictionaries.
    shape: what decides the program: equal for configurations that share one.
  """

  numbers: dict[str, float | int]
  frame: dict[str, Any]
  shape: str


def take_apart(config: config_dict.ConfigDict) -> Parts:
  """Separates the numbers of a configuration from the program's shape.

  Args:
    config: a checked configuration.

  Returns:
    Its parts. Keys that are none stay in the shape: they choose a branch.
  """
  frame = config_to_dict(config)
  flat = flatten_dict(frame, sep=".")
  numbers = {
    key: KEYS[key].rule.kind(flat[key])
    for key in TRACED
    if flat[key] is not None
  }
  shape = {
    key: value
    for key, value in flat.items()
    if key not in numbers and key not in _NOT_COMPILED
  }
  return Parts(numbers, frame, repr(sorted(shape.items())))


def put_together(
  frame: Mapping[str, Any], numbers: Mapping[str, Any]
) -> config_dict.ConfigDict:
  """The configuration of `frame` with other, perhaps traced, numbers."""
  flat = flatten_dict(dict(frame), sep=".") | numbers
  return config_from_dict(unflatten_dict(flat, sep="."))
