"""From the loss and perturbation of a config to functions and transforms."""

import operator
from collections.abc import Callable
from typing import Any

import jax
import optax
from jaxtyping import Array
from ml_collections import config_dict

import forgetsam as fs
from forgetsam._typing import AscentSignal, Loss, PyTree
from forgetsam.experiment.build._trained import build_trained
from forgetsam.experiment.config import (
  ConfigError,
  build_component,
  reads_clean,
  refusal,
)

Seed = int | Array


def build_loss(config: config_dict.ConfigDict, num_classes: int) -> Loss:
  """The training loss of logits and labels."""
  loss: Loss = build_component(config, "loss", num_classes=num_classes)
  return loss


def build_ascent(
  config: config_dict.ConfigDict, num_classes: int
) -> AscentSignal:
  """The ascent signal of logits and labels."""
  signal: AscentSignal = build_component(
    config,
    "ascent",
    loss=build_loss(config, num_classes),
    num_classes=num_classes,
  )
  return signal


def build_rho(
  config: config_dict.ConfigDict,
  learning_rate: optax.Schedule,
  num_steps: int | None = None,
) -> optax.Schedule:
  """The perturbation radius as a function of the step."""
  return build_component(
    config, "rho_schedule", learning_rate=learning_rate, num_steps=num_steps
  )


def build_perturbation(
  config: config_dict.ConfigDict, rho: optax.Schedule, seed: Seed
) -> optax.GradientTransformation | None:
  """Maps ascent gradients to offsets; None where training is plain."""
  options = config.perturbation
  perturbation = build_component(config, "perturbation", rho=rho, seed=seed)
  if perturbation is None:
    return None
  if options.steps > 1:
    perturbation = fs.multi_step(perturbation, options.steps)
  if options.layers == "norm" or config.optimizer.train_only is not None:
    perturbation = fs.only(perturbation, _perturbed_arrays(config))
  return perturbation


def build_perturb(
  config: config_dict.ConfigDict,
  rho: optax.Schedule,
  seed: Seed,
  num_steps: int,
  **offers: Any,
) -> optax.GradientTransformation | None:
  """The perturbed gradient, or None where training is plain.

  Args:
    config: a checked configuration.
    rho: the radius, a schedule of the step.
    seed: what a random perturbation draws from.
    num_steps: updates in the run, of which a part may perturb.
    **offers: what else a method may name: learning_rate, num_examples.

  Returns:
    What `make_train_step` takes as `perturb`.
  """
  perturbation = build_perturbation(config, rho, seed)
  if perturbation is None:
    return None
  options = config.perturbation
  if options.every_k > 1:
    perturbation = fs.every_k(perturbation, options.every_k)
  if options.start > 0 or options.stop < 1:
    start = min(round(options.start * num_steps), num_steps - 1)
    stop = max(round(options.stop * num_steps), start + 1)
    perturbation = fs.active_between(perturbation, start, stop)
  if config.look_sam.k > 1:
    return fs.look_sam(perturbation, config.look_sam.k, config.look_sam.alpha)
  return build_component(
    config,
    "method",
    perturbation=perturbation,
    combine=_build_combine(config),
    rho=rho,
    seed=seed,
    **offers,
  )


def _build_combine(config: config_dict.ConfigDict) -> Any:
  """The rule, with the loss's own gradient where it reads that."""
  if config.combine.name == "weighted" and config.combine.decoupled:
    return None  # of the optimizer
  rule = build_component(config, "combine")
  if reads_clean(config) and config.ascent.name != "loss":
    return fs.with_clean_gradient(rule)
  return rule


def _perturbed_arrays(
  config: config_dict.ConfigDict,
) -> Callable[[PyTree], PyTree]:
  """Marks what trains and lies in the layers to perturb."""
  trained, norm = build_trained(config), config.perturbation.layers == "norm"

  def perturbed(params: PyTree) -> PyTree:
    marked = trained(params)
    if norm:
      marked = jax.tree.map(operator.and_, marked, _norm_layers(params))
    if not any(jax.tree.leaves(marked)):
      allowed = (
        "all where config.optimizer.train_only="
        f"{config.optimizer.train_only!r} names no normalisation layer"
      )
      raise ConfigError(refusal("config.perturbation.layers", "norm", allowed))
    return marked

  return perturbed


def _norm_layers(params: PyTree) -> PyTree:
  try:
    return fs.norm_layers(params)
  except ValueError as error:
    allowed = "all where config.model.name has no normalisation layers"
    raise ConfigError(
      refusal("config.perturbation.layers", "norm", allowed)
    ) from error
