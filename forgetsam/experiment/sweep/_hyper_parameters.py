"""Which keys of a configuration are numbers that a compiled program reads."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ml_collections import config_dict

from forgetsam.experiment.config import SCHEMA, config_from_dict, config_to_dict

# The factories that these reach accept traced numbers. Everything else gives
# the program its shape: names, sizes, counts of steps.
TRACED = (
  "seed",
  "loss.label_smoothing",
  "ascent.lam",
  "ascent.gamma",
  "perturbation.rho",
  "perturbation.rho_min",
  "perturbation.eta",
  "perturbation.sigma",
  "perturbation.decay",
  "look_sam.alpha",
  "combine.alpha",
  "combine.gamma",
  "optimizer.learning_rate",
  "optimizer.weight_decay",
  "optimizer.momentum",
  "optimizer.clip",
  "optimizer.shrink_and_perturb",
  "schedule.min_learning_rate",
)

# What does not reach the program but by the shape of its data.
_NOT_COMPILED = (
  *("data.", "evaluation.", "log.", "checkpoint."),
  *("sharpness.", "forgetting.", "probe."),
)


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
  flat = _flatten(frame)
  numbers = {
    key: SCHEMA[key].kind(flat[key]) for key in TRACED if flat[key] is not None
  }
  shape = {
    key: value
    for key, value in flat.items()
    if key not in numbers and not key.startswith(_NOT_COMPILED)
  }
  return Parts(numbers, frame, repr(sorted(shape.items())))


def put_together(
  frame: Mapping[str, Any], numbers: Mapping[str, Any]
) -> config_dict.ConfigDict:
  """The configuration of `frame` with other, perhaps traced, numbers."""

  def fill(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {
      name: fill(value, f"{prefix}{name}.")
      if isinstance(value, Mapping)
      else numbers.get(prefix + name, value)
      for name, value in values.items()
    }

  return config_from_dict(fill(frame, ""))


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  flat: dict[str, Any] = {}
  for name, value in values.items():
    if isinstance(value, Mapping):
      flat |= _flatten(value, f"{prefix}{name}.")
    else:
      flat[prefix + name] = value
  return flat
