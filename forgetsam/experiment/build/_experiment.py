"""Builds all that a run needs from its configuration."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import config_dict

import forgetsam as fs
from forgetsam import data, models
from forgetsam.experiment.build._batches import (
  build_eval_batches,
  build_train_batches,
  build_train_indices,
)
from forgetsam.experiment.build._data import build_sources
from forgetsam.experiment.build._idle_keys import warn_of_idle_keys
from forgetsam.experiment.build._initial_weights import build_start
from forgetsam.experiment.build._mesh import (
  build_mesh,
  build_sharding,
  build_shardings,
  check_model_axis,
)
from forgetsam.experiment.build._model import (
  build_metrics,
  build_model,
  build_train_forward,
  input_spec,
)
from forgetsam.experiment.build._optimizer import (
  build_learning_rate,
  build_optimizer,
)
from forgetsam.experiment.build._perturbation import (
  build_ascent,
  build_loss,
  build_perturb,
  build_rho,
)
from forgetsam.experiment.build._probe import build_probe
from forgetsam.experiment.build._step_check import check_step
from forgetsam.experiment.build._task import build_eval_step, check_task
from forgetsam.experiment.build._trained import freeze_others
from forgetsam.experiment.config import ConfigError, refusal
from forgetsam.experiment.run import (
  Experiment,
  Intervals,
  delta_examples,
  micro_batch,
  num_devices,
)
from forgetsam.training import has_more_axes


def _check_counts(config: config_dict.ConfigDict, per_epoch: int) -> None:
  """Refuses more steps than a step counter holds."""
  most = (2**31 - 1) // per_epoch
  for key, epochs in [
    ("epochs", config.epochs),
    ("schedule.warmup_epochs", config.schedule.warmup_epochs),
  ]:
    if epochs > most:
      text = f"at most {most}, which is 2**31 steps"
      raise ConfigError(refusal(f"config.{key}", epochs, text))


def _check_smallest_pass(
  config: config_dict.ConfigDict,
  model: nn.Module,
  inputs: jax.ShapeDtypeStruct,
) -> None:
  """Refuses a pass over one example that the model cannot train on."""
  m = micro_batch(config)
  key, value = "config.micro_batch_size", config.micro_batch_size
  if m > 1 and config.ascent.fraction * m <= 1:
    key, value = "config.ascent.fraction", config.ascent.fraction
  elif m > 1:
    return
  forward: Any = models.forward(model)

  def one_example(key: Any) -> Any:
    params, model_state = models.initialise(model, key, inputs)
    one = jnp.zeros((1, *inputs.shape), inputs.dtype)
    return forward(params, model_state, one, train=True, key=key)

  try:
    jax.eval_shape(one_example, jax.random.key(0))
  except ValueError as error:
    allowed = (
      "what leaves more than one example to a micro-batch of one device"
      f" (config.batch_size={config.batch_size}, {num_devices()} devices):"
      f" {error}"
    )
    raise ConfigError(refusal(key, value, allowed)) from error


def build_experiment(
  config: config_dict.ConfigDict, sources: data.Sources | None = None
) -> Experiment:
  """Opens the data and builds the functions of a run; compiles nothing.

  Args:
    config: a checked configuration; its hyper-parameters may be traced.
    sources: what `build_sources` made of it before; None opens them.

  Returns:
    The run's pieces.

  Raises:
    ConfigError: the configuration does not fit the data.
  """
  sources = build_sources(config) if sources is None else sources
  assert sources.train is not None  # build_sources refuses sets without
  classes = sources.num_classes
  inputs = input_spec(sources)
  model = build_model(config, classes, inputs)
  check_task(config, model, sources)
  mesh = build_mesh(config)
  sharding = build_sharding(mesh)
  per_epoch = data.steps_per_epoch(len(sources.train), config.batch_size)
  _check_counts(config, per_epoch)
  learning_rate = build_learning_rate(config, per_epoch)
  num_steps = config.epochs * per_epoch
  rho = build_rho(config, learning_rate, num_steps)
  optimizer = build_optimizer(config, learning_rate)
  _check_smallest_pass(config, model, inputs)
  if not isinstance(config.seed, jax.Array):  # traced: it was said before
    warn_of_idle_keys(config, per_epoch)
  perturb = build_perturb(
    config,
    rho,
    config.seed,
    num_steps,
    learning_rate=learning_rate,
    num_examples=len(sources.train),
  )
  schedules = {"learning_rate": learning_rate}
  if perturb is not None:
    schedules["rho"] = rho
  shards = config.optimizer.shard_state and mesh is not None
  start = build_start(config)
  init_key, run_key = jax.random.split(jax.random.key(config.seed))

  def initialise() -> tuple[Any, Any]:
    return models.initialise(model, init_key, inputs)

  shardings = None
  if has_more_axes(mesh):
    boxed, _ = jax.eval_shape(initialise)
    shardings = build_shardings(config, model, mesh, boxed)
    check_model_axis(config, shardings)

  def create_state(*, fresh: bool = True) -> fs.TrainState:
    make: Any = lambda: nn.unbox(initialise())  # noqa: E731
    if shardings is not None:  # no device could hold the whole
      make = jax.jit(make, out_shardings=(shardings, None))
    initial = make()
    params, model_state = start(*initial) if fresh else initial
    return fs.create_train_state(
      params,
      model_state,
      optimizer,
      perturb,
      mesh,
      shardings=shardings,
      shard_opt_state=shards,
    )

  forward: Any = models.forward(model)
  experiment = Experiment(
    sources=sources,
    model=model,
    create_state=create_state,
    train_step=fs.make_train_step(
      freeze_others(build_train_forward(config, forward), config),
      loss=build_loss(config, classes),
      optimizer=optimizer,
      ascent=None if perturb is None else build_ascent(config, classes),
      perturb=perturb,
      metrics=build_metrics(config, classes),
      micro_batch_size=config.micro_batch_size,
      ascent_fraction=config.ascent.fraction,
      m_sharpness=config.m_sharpness,
      m_sharpness_chunk=config.m_sharpness_chunk,
      mesh=mesh,
      shard_opt_state=shards,
    ),
    eval_step=build_eval_step(config, forward, classes, mesh),
    train_batches=build_train_batches(config, sources.train, sharding),
    train_indices=build_train_indices(config, sources.train),
    eval_batches=build_eval_batches(config, sharding),
    key=run_key,
    steps_per_epoch=per_epoch,
    num_steps=num_steps,
    schedules=schedules,
    delta_examples=delta_examples(config),
    intervals=Intervals(
      evaluate=config.evaluation.every_epochs * per_epoch,
      checkpoint=config.checkpoint.every_steps,
      log=config.log.every_steps,
      probe=config.probe.every_steps,
    ),
    keep=config.checkpoint.keep,
    skip_non_finite=config.on_nonfinite == "skip",
    watch_test=config.evaluation.watch_test,
    probe=build_probe(config, sources, forward),
    profile=config.log.profile,
  )
  if not isinstance(config.seed, jax.Array):
    check_step(config, experiment)
  return experiment
