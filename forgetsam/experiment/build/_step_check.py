"""Refuses, by a trace alone, components with which no step can be taken."""

from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import config_dict

from forgetsam.experiment.build._batches import beside_previous
from forgetsam.experiment.build._model import input_spec
from forgetsam.experiment.config import (
  ConfigError,
  cause,
  leaves,
  own_components,
  reads_previous,
  refusal,
)
from forgetsam.experiment.run import Experiment
from forgetsam.training.factored import MSharpness


def check_step(config: config_dict.ConfigDict, run: Experiment) -> None:
  """Traces the first state, and a step where its components are the user's.

  Args:
    config: the checked configuration of the run; its numbers are not traced.
    run: what is built of it.

  Raises:
    ConfigError: the state, a schedule or the step cannot be made.
  """
  own = own_components(config)
  if reads_previous(config) and "mask" in _batch(config, run):
    allowed = "another method where the training set has weights of examples"
    raise ConfigError(
      refusal("config.method.name", config.method.name, allowed)
    )
  if own or config.optimizer.train_only is not None:
    _check_own(config, run, own)
  if config.m_sharpness != "loop":
    _m_sharpness(config, run)


def _check_own(
  config: config_dict.ConfigDict, run: Experiment, own: dict[str, str]
) -> None:
  try:
    state = jax.eval_shape(lambda: run.create_state(fresh=False))
    if own:
      _check_schedules(config, run)
      step: Any = run.train_step
      step.eval_shape(state, _batch(config, run), run.key)
  except ConfigError:
    raise
  except Exception as error:  # of functions that may not be ours
    _refuse_m_sharpness(config, error)
    places = config.modules or (".",)
    names = ", ".join(f"config.{key}={name!r}" for key, name in own.items())
    raise ConfigError(
      f"{names} {'are' if len(own) > 1 else 'is'} refused\n  allowed: what a "
      f"compiled step can call with traced arrays; this {cause(error, *places)}"
    ) from error


def log_m_sharpness(config: config_dict.ConfigDict, run: Experiment) -> None:
  """Says how micro-batches are taken on these devices, where it was a choice.

  Args:
    config: the checked configuration of the run.
    run: what is built of it.
  """
  if config.m_sharpness != "loop":
    found = _m_sharpness(config, run)
    logging.info(
      "m_sharpness: %s, %d examples at a time: %s",
      *(found.how, found.chunk, found.reason),
    )


def _m_sharpness(config: config_dict.ConfigDict, run: Experiment) -> MSharpness:
  state = jax.eval_shape(lambda: run.create_state(fresh=False))
  step: Any = run.train_step
  try:
    return step.m_sharpness(state, _batch(config, run))
  except ValueError as error:
    _refuse_m_sharpness(config, error)
    raise


def _refuse_m_sharpness(
  config: config_dict.ConfigDict, error: Exception
) -> None:
  """Names the key, where it is m_sharpness that does not fit the step."""
  if not isinstance(error, ValueError) or "m_sharpness" not in str(error):
    return
  key = "m_sharpness"
  if "m_sharpness_chunk" in str(error):
    key = "m_sharpness_chunk"
  raise ConfigError(
    refusal(f"config.{key}", leaves(config)[key], str(error))
  ) from error


def _check_schedules(config: config_dict.ConfigDict, run: Experiment) -> None:
  for name, schedule in run.schedules.items():
    key = "perturbation.rho_schedule" if name == "rho" else "schedule.name"
    count = jax.ShapeDtypeStruct((), np.int32)
    shapes = jax.eval_shape(schedule, count)
    if jax.tree.map(lambda x: x.shape, shapes) != ():
      allowed = f"what gives one number a step; this gives {shapes}"
      raise ConfigError(refusal(f"config.{key}", leaves(config)[key], allowed))


def _batch(config: config_dict.ConfigDict, run: Experiment) -> dict[str, Any]:
  """The shapes of a batch over all devices."""
  sources, size = run.sources, config.batch_size
  inputs = input_spec(sources)

  def spec(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((size, *shape), dtype)

  batch = {
    "image": spec(inputs.shape, inputs.dtype),
    "label": spec(sources.label_shape, sources.label_dtype),
  }
  weights = getattr(getattr(sources.train, "split", None), "weights", None)
  if weights is not None:
    batch["mask"] = spec(weights.shape[1:], weights.dtype)
  if reads_previous(config):
    return beside_previous(batch, batch)
  return batch
