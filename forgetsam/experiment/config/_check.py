"""Refuses a configuration that cannot run, before data or compilation."""

from collections.abc import Callable, Iterator
from typing import Any

from ml_collections import config_dict

from forgetsam.experiment.config._errors import ConfigError, closest, refusal
from forgetsam.experiment.config._perturbation_checks import (
  perturbation_problems,
)
from forgetsam.experiment.config._schema import SCHEMA, is_model_option
from forgetsam.experiment.config._schema import leaves as config_leaves


def check_config(config: config_dict.ConfigDict, num_devices: int) -> None:
  """Raises a `ConfigError` that lists every key that cannot be run.

  Args:
    config: a configuration as `configs/` builds it.
    num_devices: number of devices that share a batch.

  Raises:
    ConfigError: a key is unknown, missing, of the wrong type or outside its
      range, or values do not go together. The error's last lines name the full
      key, its value and what is allowed.
  """
  leaves = config_leaves(config)
  problems = list(_key_problems(leaves)) or list(_value_problems(leaves))
  if not problems:  # what follows compares values that are valid alone
    for check in _JOINT_CHECKS:
      problems += check(leaves, num_devices)
  if problems:
    raise ConfigError("\n".join(problems))


def _key_problems(leaves: dict[str, Any]) -> Iterator[str]:
  for key, value in leaves.items():
    if key not in SCHEMA and not is_model_option(key):
      yield refusal(
        f"config.{key}",
        value,
        f"no such key; {closest(f'config.{key}', _full(SCHEMA))}",
      )
  for key in SCHEMA:
    if key not in leaves:
      yield f"config.{key} is missing\n  allowed: {SCHEMA[key].describe()}"


def _full(keys: Any) -> list[str]:
  return [f"config.{key}" for key in keys]


def _value_problems(leaves: dict[str, Any]) -> Iterator[str]:
  for key, rule in SCHEMA.items():
    if not rule.admits(leaves[key]):
      yield refusal(f"config.{key}", leaves[key], rule.describe())


def _batch_problems(leaves: dict[str, Any], num_devices: int) -> Iterator[str]:
  for key in ("batch_size", "evaluation.batch_size"):
    if leaves[key] % num_devices:
      yield refusal(
        f"config.{key}",
        leaves[key],
        f"a multiple of the number of devices, {num_devices}",
      )
      return
  share, m = leaves["batch_size"] // num_devices, leaves["micro_batch_size"]
  if m is not None and share % m:
    yield refusal(
      "config.micro_batch_size",
      m,
      f"a divisor of a device's share of the batch, {share} "
      f"(config.batch_size={leaves['batch_size']} over {num_devices} "
      f"device{'s' if num_devices > 1 else ''}), or none",
    )


def _schedule_problems(leaves: dict[str, Any], _: int) -> Iterator[str]:
  peak, low = (
    leaves["optimizer.learning_rate"],
    leaves["schedule.min_learning_rate"],
  )
  if low > peak:
    yield refusal(
      "config.schedule.min_learning_rate",
      low,
      f"at most config.optimizer.learning_rate={peak}",
    )
  if low == peak and leaves["perturbation.rho_schedule"] == "lr_proportional":
    yield refusal(
      "config.perturbation.rho_schedule",
      "lr_proportional",
      "constant where config.schedule.min_learning_rate equals "
      f"config.optimizer.learning_rate={peak}: there is no range to follow",
    )


def _image_problems(leaves: dict[str, Any], _: int) -> Iterator[str]:
  mean, std = leaves["data.mean"], leaves["data.std"]
  if len(mean) != len(std):
    yield refusal(
      "config.data.std", std, f"as many channels as config.data.mean={mean}"
    )


def _stream_problems(leaves: dict[str, Any], _: int) -> Iterator[str]:
  if not leaves["data.stream"]:
    if leaves["data.skip_corrupt"]:
      yield refusal(
        "config.data.skip_corrupt",
        True,
        "false where config.data.stream=false; prepare the set again instead",
      )
    return
  for key, neutral in [
    ("data.label_noise", 0),
    ("data.crop_padding", 0),
  ]:
    if leaves[key] != neutral:
      yield refusal(
        f"config.{key}",
        leaves[key],
        f"{str(neutral).lower()} where config.data.stream=true: it needs the "
        "set in memory",
      )
  for prefix in ("evaluation.", "evaluation.job_"):
    size, short_side = (
      leaves[prefix + name] or leaves[f"evaluation.{name}"]
      for name in ("image_size", "short_side")
    )
    if size > short_side:
      yield refusal(
        f"config.{prefix}image_size",
        size,
        f"at most config.{prefix}short_side={short_side}, of which it is the "
        "middle",
      )
      return


def _model_problems(leaves: dict[str, Any], _: int) -> Iterator[str]:
  from forgetsam import models

  name = leaves["model.name"]
  if name not in models.names():
    yield refusal(
      "config.model.name", name, "one of " + ", ".join(models.names())
    )
    return
  options = {
    key.removeprefix("model."): value
    for key, value in leaves.items()
    if is_model_option(key) and value is not None
  }
  try:  # the constructor knows its options; the classes do not matter here
    models.create(name, 2, **options)
  except ValueError as together:
    alone = list(_options_refused_alone(name, options))
    chosen = ", ".join(f"config.model.{k}={v!r}" for k, v in options.items())
    yield from alone or [f"{chosen} are refused\n  allowed: {together}"]


def _options_refused_alone(name: str, options: dict[str, Any]) -> Iterator[str]:
  from forgetsam import models

  for key, value in options.items():
    try:
      models.create(name, 2, **{key: value})
    except ValueError as error:
      yield refusal(f"config.model.{key}", value, str(error))


def _data_problems(leaves: dict[str, Any], _: int) -> Iterator[str]:
  from forgetsam import data

  try:
    data.check_available(leaves["data.name"], leaves["data.dir"])
  except ValueError as error:
    yield refusal("config.data.name", leaves["data.name"], str(error))


_JointCheck = Callable[[dict[str, Any], int], Iterator[str]]
_JOINT_CHECKS: tuple[_JointCheck, ...] = (
  _batch_problems,
  perturbation_problems,
  _schedule_problems,
  _image_problems,
  _stream_problems,
  _model_problems,
  _data_problems,
)
