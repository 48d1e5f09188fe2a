"""Refuses a configuration that cannot run, before data or compilation."""

from collections.abc import Callable, Iterator
from typing import Any

from ml_collections import config_dict

from forgetsam._paths import scheme_of
from forgetsam.experiment.config._component_problems import (
  component_problems,
)
from forgetsam.experiment.config._device_checks import (
  batch_problems,
  device_problems,
)
from forgetsam.experiment.config._errors import ConfigError, closest, refusal
from forgetsam.experiment.config._json import leaves as flat_config
from forgetsam.experiment.config._keys import KEYS
from forgetsam.experiment.config._modules import is_module_attribute
from forgetsam.experiment.config._options import (
  OPTIONS,
  is_json,
  is_model_option,
  option_row,
  row_of,
)
from forgetsam.experiment.config._perturbation_checks import (
  perturbation_problems,
)
from forgetsam.experiment.config._perturbing import hint_of_key


def check_config(
  config: config_dict.ConfigDict, num_devices: int, *, trains: bool = True
) -> None:
  """Raises a `ConfigError` that lists every key that cannot be run.

  Args:
    config: a configuration as `base_config` makes it.
    num_devices: number of devices that share a batch.
    trains: whether training batches are among those; a run may be measured on
      more devices than it could be trained on.

  Raises:
    ConfigError: a key is unknown, missing, of the wrong type or outside its
      range, or values do not go together. The error's last lines name the full
      key, its value and what is allowed.
  """
  leaves = flat_config(config)
  problems = list(_key_problems(leaves)) or list(_value_problems(leaves))
  if not problems:  # what follows compares values that are valid alone
    problems += device_problems("evaluation.batch_size", leaves, num_devices)
    for check in _JOINT_CHECKS:
      if check is _data_problems and leaves["evaluation.sets"] and not trains:
        continue  # other sets may be there alone
      if trains or check is not batch_problems:
        problems += check(leaves, num_devices)
    problems += component_problems(config)
  if problems:
    raise ConfigError("\n".join(problems))


def _key_problems(leaves: dict[str, Any]) -> Iterator[str]:
  for key, value in leaves.items():
    if not (row_of(key) or is_model_option(key)):
      hint = closest(f"config.{key}", [f"config.{known}" for known in KEYS])
      yield refusal(f"config.{key}", value, f"no such key; {hint}")
  for key, row in KEYS.items():
    if key not in leaves and not is_model_option(key):
      yield f"config.{key} is missing\n  allowed: {row.allowed}"


def _value_problems(leaves: dict[str, Any]) -> Iterator[str]:
  for key, row in KEYS.items():
    # The model's constructor checks its options.
    if not is_model_option(key) and not row.admits(leaves[key]):
      allowed = row.allowed + hint_of_key(key, leaves[key])
      yield refusal(f"config.{key}", leaves[key], allowed)

  for key, value in leaves.items():
    if option_row(key) and not is_json(value):
      allowed = "a number, string, bool or none, or a tuple or group of these"
      yield refusal(f"config.{key}", value, allowed)


def _schedule_problems(leaves: dict[str, Any], _: int) -> Iterator[str]:
  peak = leaves["optimizer.learning_rate"]
  low = leaves["schedule.min_learning_rate"]
  if low > peak:
    allowed = f"at most config.optimizer.learning_rate={peak}"
    yield refusal("config.schedule.min_learning_rate", low, allowed)
  if low == peak and leaves["perturbation.rho_schedule"] == "lr_proportional":
    yield refusal(
      "config.perturbation.rho_schedule",
      "lr_proportional",
      "constant where config.schedule.min_learning_rate equals "
      f"config.optimizer.learning_rate={peak}: there is no range to follow",
    )


def _optimizer_problems(leaves: dict[str, Any], _: int) -> Iterator[str]:
  if None not in (leaves["optimizer.clip"], leaves["optimizer.clip_adaptive"]):
    yield refusal(
      "config.optimizer.clip_adaptive",
      leaves["optimizer.clip_adaptive"],
      f"none where config.optimizer.clip={leaves['optimizer.clip']}",
    )


def _image_problems(leaves: dict[str, Any], _: int) -> Iterator[str]:
  mean, std = leaves["data.mean"], leaves["data.std"]
  if len(mean) != len(std):
    allowed = f"as many channels as config.data.mean={mean}"
    yield refusal("config.data.std", std, allowed)


def _stream_problems(leaves: dict[str, Any], _: int) -> Iterator[str]:
  if not leaves["data.stream"]:
    for key, instead in [
      ("skip_corrupt", "; prepare the set again instead"),
      ("fast_decode", ": sets in memory are decoded once"),
    ]:
      if leaves[f"data.{key}"]:
        allowed = f"false where config.data.stream=false{instead}"
        yield refusal(f"config.data.{key}", True, allowed)
    return
  for key in ("data.label_noise", "data.crop_padding"):
    if leaves[key] != 0:
      allowed = "0 where config.data.stream=true: it needs the set in memory"
      yield refusal(f"config.{key}", leaves[key], allowed)
  for prefix in ("evaluation.", "evaluation.job_"):
    size, short_side = (
      leaves[prefix + name] or leaves[f"evaluation.{name}"]
      for name in ("image_size", "short_side")
    )
    if size > short_side:
      allowed = (
        f"at most config.{prefix}short_side={short_side}, the resized side"
      )
      yield refusal(f"config.{prefix}image_size", size, allowed)
      return


def _sharpness_problems(leaves: dict[str, Any], _: int) -> Iterator[str]:
  top, steps = leaves["sharpness.top"], leaves["sharpness.lanczos_steps"]
  if top > steps:
    allowed = (
      f"at most config.sharpness.lanczos_steps={steps}: each step gives one"
    )
    yield refusal("config.sharpness.top", top, allowed)


def _model_problems(leaves: dict[str, Any], _: int) -> Iterator[str]:
  """Of a registered model, whose constructor knows its options."""
  from forgetsam import models

  name = leaves["model.name"]
  if is_module_attribute(name):
    return
  if name not in models.names():
    allowed = f"one of {', '.join(models.names())}, or module:attribute"
    yield refusal("config.model.name", name, allowed)
    return
  given = {
    key: value
    for key, value in leaves.items()
    if option_row(key) is OPTIONS["model.options"]
    or (is_model_option(key) and value is not None)
  }
  options = {key.rpartition(".")[2]: value for key, value in given.items()}
  for option in options:
    one, other = f"model.{option}", f"model.options.{option}"
    if one in given and other in given:
      allowed = f"left out where config.{one}={given[one]!r} gives it"
      yield refusal(f"config.{other}", given[other], allowed)
      return
  try:  # the classes do not matter here
    models.create(name, 2, **options)
  except (TypeError, ValueError) as together:
    alone = list(_options_refused_alone(name, given))
    chosen = ", ".join(f"config.{k}={v!r}" for k, v in given.items())
    yield from alone or [f"{chosen} are refused\n  allowed: {together}"]


def _options_refused_alone(name: str, given: dict[str, Any]) -> Iterator[str]:
  from forgetsam import models

  for key, value in given.items():
    try:
      models.create(name, 2, **{key.rpartition(".")[2]: value})
    except (TypeError, ValueError) as error:
      yield refusal(f"config.{key}", value, str(error))


def _data_problems(leaves: dict[str, Any], _: int) -> Iterator[str]:
  from forgetsam import data

  if is_module_attribute(leaves["data.name"]):
    return
  for key in leaves:
    if option_row(key) is OPTIONS["data.options"]:
      allowed = "left out where config.data.name is no module:function"
      yield refusal(f"config.{key}", leaves[key], allowed)
  try:
    data.check_available(leaves["data.name"], leaves["data.dir"])
  except data.DatasetNotFoundError as error:
    remote = scheme_of(leaves["data.dir"] or "") == "gs"
    key = "data.dir" if remote else "data.name"
    yield refusal(f"config.{key}", leaves[key], str(error))
  except ValueError as error:  # about another place, such as TFDS_DATA_DIR
    yield str(error)


_JointCheck = Callable[[dict[str, Any], int], Iterator[str]]
_JOINT_CHECKS: tuple[_JointCheck, ...] = (
  batch_problems,
  perturbation_problems,
  _schedule_problems,
  _optimizer_problems,
  _image_problems,
  _stream_problems,
  _sharpness_problems,
  _model_problems,
  _data_problems,
)
