"""From the loss and perturbation of a config to functions and transforms."""

import optax
from jaxtyping import Array
from ml_collections import config_dict

import forgetsam as fs
from forgetsam._typing import AscentSignal, Loss


def build_loss(config: config_dict.ConfigDict) -> Loss:
  """The training loss of logits and labels."""
  smoothing = config.loss.label_smoothing
  if config.loss.name == "sigmoid_cross_entropy":
    return fs.sigmoid_cross_entropy(label_smoothing=smoothing)
  return fs.softmax_cross_entropy(label_smoothing=smoothing)


def build_ascent(config: config_dict.ConfigDict) -> AscentSignal:
  """The ascent signal of logits and labels."""
  if config.ascent.name == "loss":
    return fs.loss_ascent(build_loss(config))
  return fs.output_bias_forgetting(
    lam=config.ascent.lam,
    gamma=config.ascent.gamma,
    activation=config.ascent.activation,
  )


def build_rho(
  config: config_dict.ConfigDict, learning_rate: optax.Schedule
) -> optax.Schedule:
  """The perturbation radius as a function of the step."""
  options = config.perturbation
  if options.rho_schedule == "constant":
    return optax.constant_schedule(options.rho)
  return fs.lr_proportional_rho(
    learning_rate,
    rho_max=options.rho,
    rho_min=options.rho_min,
    lr_max=config.optimizer.learning_rate,
    lr_min=config.schedule.min_learning_rate,
  )


def build_perturbation(
  config: config_dict.ConfigDict, rho: optax.Schedule, seed: int | Array
) -> optax.GradientTransformation | None:
  """From ascent gradients to offsets, or None where training is plain.

  Args:
    config: a checked configuration.
    rho: the radius, a schedule of the step.
    seed: what a random perturbation draws from.
  """
  name = config.perturbation.name
  if name == "none":
    return None
  if name == "random":
    return fs.random_perturbation(rho, seed)
  perturbation = fs.sam(rho)
  if name == "asam":
    perturbation = fs.asam(
      rho,
      eta=config.perturbation.eta,
      magnitude=config.perturbation.magnitude,
    )
  steps = config.perturbation.steps
  return fs.multi_step(perturbation, steps) if steps > 1 else perturbation


def build_perturb(
  config: config_dict.ConfigDict, rho: optax.Schedule, seed: int | Array
) -> optax.GradientTransformation | None:
  """The perturbed gradient, or None where training is plain.

  Args:
    config: a checked configuration.
    rho: the radius, a schedule of the step.
    seed: what a random perturbation draws from.

  Returns:
    What `make_train_step` takes as `perturb`.
  """
  perturbation = build_perturbation(config, rho, seed)
  if perturbation is None:
    return None
  combine = None
  if config.combine.name == "surrogate_gap":
    combine = fs.surrogate_gap(
      config.combine.alpha, normalized=config.combine.normalized
    )
  return fs.perturbed_gradient(perturbation, combine)
