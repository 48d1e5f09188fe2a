"""Every configuration key: its type and the values it may take alone."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from ml_collections import config_dict

# What JAX's integers hold, and its floating-point numbers.
_INT_LIMIT = 2**31
_LARGEST = 3.4e38


class Rule(NamedTuple):
  """What a key may hold: `accepts` sees values of the right type only."""

  kind: type
  allowed: str
  accepts: Callable[[Any], bool]
  optional: bool = False

  def describe(self) -> str:
    """What is allowed, in words."""
    return self.allowed + (", or none" if self.optional else "")

  def admits(self, value: Any) -> bool:
    """Whether `value` has the right type and lies in the allowed range."""
    if value is None:
      return self.optional
    if self.kind is float:
      if isinstance(value, bool) or not isinstance(value, int | float):
        return False
      most = _INT_LIMIT - 1 if isinstance(value, int) else _LARGEST
      return abs(value) <= most and self.accepts(value)
    if self.kind is int and isinstance(value, bool):
      return False
    return isinstance(value, self.kind) and self.accepts(value)


def _choice(*names: str) -> Rule:
  return Rule(str, "one of " + ", ".join(names), lambda v: v in names)


def _integer(low: int, optional: bool = False) -> Rule:
  text = f"an integer, at least {low} and below 2**31"
  return Rule(int, text, lambda v: low <= v < _INT_LIMIT, optional)


def _seed() -> Rule:
  text = "an integer, at least 0 and below 2**63"
  return Rule(int, text, lambda v: 0 <= v < 2**63)


def _number(
  text: str, accepts: Callable[[float], bool], optional: bool = False
) -> Rule:
  return Rule(float, text, accepts, optional)


def _text(text: str, optional: bool = False) -> Rule:
  return Rule(str, text, bool, optional)


def _flag() -> Rule:
  return Rule(bool, "true or false", lambda v: True)


def _words(text: str, known: Collection[str] = ()) -> Rule:
  def admits(value: str) -> bool:
    words = value.split(",")
    return not value or all(w in known if known else w for w in words)

  return Rule(str, text, admits)


def _range(text: str, high: float = math.inf) -> Rule:
  def admits(values: Iterable[Any]) -> bool:
    values = tuple(values)
    one = _number(text, lambda v: v > 0)
    if len(values) != 2 or not all(one.admits(value) for value in values):
      return False
    return bool(values[0] <= values[1] <= high)

  return Rule(tuple, f"a tuple of two numbers, {text}", admits)


def _numbers(text: str, accepts: Callable[[float], bool]) -> Rule:
  def admits(values: Iterable[Any]) -> bool:
    one = _number(text, accepts)
    values = tuple(values)
    return bool(values) and all(one.admits(value) for value in values)

  return Rule(tuple, f"a tuple, per channel {text}", admits)


_FINITE = _number("a finite number", lambda v: True)
_NOT_NEGATIVE = _number("a finite number, at least 0", lambda v: v >= 0)
_POSITIVE = _number("a finite number above 0", lambda v: v > 0)
_BELOW_ONE = _number("a number in [0, 1)", lambda v: 0 <= v < 1)
_UP_TO_ONE = _number("a number in [0, 1]", lambda v: 0 <= v <= 1)
_ABOVE_ZERO_UP_TO_ONE = _number("a number in (0, 1]", lambda v: 0 < v <= 1)

LOSSES = ("softmax_cross_entropy", "sigmoid_cross_entropy")
ASCENTS = ("loss", "output_bias_forgetting")
PERTURBATIONS = ("none", "sam", "asam", "random", "momentum", "friendly_sam")
COMBINES = ("none", "surrogate_gap", "weighted")
OPTIMIZERS = ("adamw", "sgdw")
SCHEDULES = ("cosine", "linear")
RHO_SCHEDULES = ("constant", "lr_proportional")
WHICH = ("last", "best", "all")
PROBES = ("sam", "obf", "random")

# The options under `model.` belong to the model that `model.name` chooses, and
# its constructor checks them.
SCHEMA: Mapping[str, Rule] = {
  "seed": _seed(),
  "on_nonfinite": _choice("stop", "skip"),
  "init_from": _text("the folder of a run, or a PyTorch model's file", True),
  "epochs": _integer(1),
  "batch_size": _integer(1),
  "micro_batch_size": _integer(1, optional=True),
  "model.name": _text("the name of a registered model"),
  "data.name": _text("the name of a data set"),
  "data.stream": _flag(),
  "data.image_size": _integer(1),
  "data.crop_area": _range("0 < lowest <= highest <= 1", high=1.0),
  "data.crop_aspect": _range("0 < lowest <= highest"),
  "data.shuffle_buffer": _integer(1),
  "data.skip_corrupt": _flag(),
  "data.threads": _integer(1, optional=True),
  "data.dir": _text("a folder", optional=True),
  "data.validation": _BELOW_ONE,
  "data.split_seed": _seed(),
  "data.train_examples": _integer(1, optional=True),
  "data.label_noise": _UP_TO_ONE,
  "data.mean": _numbers("a finite number", lambda v: True),
  "data.std": _numbers("a finite number above 0", lambda v: v > 0),
  "data.flip": _flag(),
  "data.crop_padding": _integer(0),
  "loss.name": _choice(*LOSSES),
  "loss.label_smoothing": _BELOW_ONE,
  "ascent.name": _choice(*ASCENTS),
  "ascent.lam": _BELOW_ONE._replace(optional=True),
  "ascent.gamma": _UP_TO_ONE,
  "ascent.activation": _choice("sigmoid", "softmax"),
  "ascent.fraction": _ABOVE_ZERO_UP_TO_ONE,
  "perturbation.name": _choice(*PERTURBATIONS),
  "perturbation.rho": _NOT_NEGATIVE,
  "perturbation.steps": _integer(1),
  "perturbation.every_k": _integer(1),
  "perturbation.layers": _choice("all", "norm"),
  "perturbation.start": _BELOW_ONE,
  "perturbation.stop": _ABOVE_ZERO_UP_TO_ONE,
  "perturbation.sigma": _FINITE,
  "perturbation.decay": _BELOW_ONE,
  "perturbation.rho_schedule": _choice(*RHO_SCHEDULES),
  "perturbation.rho_min": _NOT_NEGATIVE,
  "perturbation.eta": _NOT_NEGATIVE,
  "perturbation.magnitude": _choice("before", "after", "both"),
  "combine.name": _choice(*COMBINES),
  "combine.alpha": _FINITE,
  "combine.normalized": _flag(),
  "combine.gamma": _BELOW_ONE,
  "look_sam.k": _integer(1),
  "look_sam.alpha": _FINITE,
  "optimizer.name": _choice(*OPTIMIZERS),
  "optimizer.learning_rate": _POSITIVE,
  "optimizer.weight_decay": _NOT_NEGATIVE,
  "optimizer.momentum": _BELOW_ONE,
  "optimizer.clip": _POSITIVE._replace(optional=True),
  "optimizer.shrink_and_perturb": _UP_TO_ONE._replace(optional=True),
  "optimizer.shard_state": _flag(),
  "schedule.name": _choice(*SCHEDULES),
  "schedule.warmup_epochs": _NOT_NEGATIVE,
  "schedule.min_learning_rate": _NOT_NEGATIVE,
  "evaluation.every_epochs": _integer(1),
  "evaluation.batch_size": _integer(1),
  "evaluation.image_size": _integer(1),
  "evaluation.short_side": _integer(1),
  "evaluation.resize_method": _choice("bilinear", "bicubic"),
  "evaluation.watch_test": _flag(),
  "evaluation.sets": _words("names of sets, separated by commas, or nothing"),
  "evaluation.job_image_size": _integer(1, optional=True),
  "evaluation.job_short_side": _integer(1, optional=True),
  "sharpness.checkpoint": _choice(*WHICH),
  "sharpness.examples": _integer(1),
  "sharpness.top": _integer(1),
  "sharpness.lanczos_steps": _integer(2),
  "sharpness.trace_samples": _integer(2),
  "sharpness.density_samples": Rule(
    int, "0 for none, or an integer, at least 2", lambda v: v == 0 or v >= 2
  ),
  "sharpness.rho": _POSITIVE,
  "sharpness.micro_batch_size": _integer(1),
  "sharpness.layers": _flag(),
  "sharpness.surface_points": _integer(0),
  "forgetting.checkpoint": _choice(*WHICH),
  "forgetting.examples": _integer(2),
  "forgetting.per_class": _integer(2),
  "forgetting.micro_batch_size": _integer(1),
  "forgetting.repeats": _integer(2),
  "forgetting.sam_rho": _NOT_NEGATIVE,
  "forgetting.obf_rho": _NOT_NEGATIVE,
  "forgetting.random_rho": _NOT_NEGATIVE,
  "forgetting.layer": _text("the name of a module of the model", optional=True),
  "forgetting.noise_std": _POSITIVE,
  "probe.perturbations": _words(
    "names among sam, obf and random, separated by commas, or nothing",
    known=PROBES,
  ),
  "probe.every_steps": _integer(1),
  "checkpoint.every_steps": _integer(1, optional=True),
  "checkpoint.keep": _integer(1),
  "log.every_steps": _integer(1),
  "log.profile": _flag(),
}


def leaves(config: config_dict.ConfigDict, prefix: str = "") -> dict[str, Any]:
  """The configuration's values by full key, without the leading `config.`."""
  flat: dict[str, Any] = {}
  for key, value in config.items():
    if isinstance(value, config_dict.ConfigDict):
      flat |= leaves(value, f"{prefix}{key}.")
    else:
      flat[prefix + key] = value
  return flat


def is_model_option(key: str) -> bool:
  """Whether the key is an option that the chosen model defines."""
  return key.startswith("model.") and key != "model.name"


def is_optional(key: str) -> bool:
  """Whether the key may be none; a model's own default then holds."""
  return is_model_option(key) or (key in SCHEMA and SCHEMA[key].optional)
