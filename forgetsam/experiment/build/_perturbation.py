"""From the loss and perturbation of a config to functions and transforms."""

import optax
from jaxtyping import Array
from ml_collections import config_dict

import forgetsam as fs
from forgetsam._typing import AscentSignal, Loss, PyTree
from forgetsam.experiment.config import ConfigError
from forgetsam.experiment.config import refusal
from forgetsam.perturbations import Combine


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

  Returns:
    The perturbation of a step that perturbs, with its steps and its layers.
  """
  options = config.perturbation
  makers = {
    "sam": lambda: fs.sam(rho),
    "asam": lambda: fs.asam(rho, eta=options.eta, magnitude=options.magnitude),
    "random": lambda: fs.random_perturbation(rho, seed),
    "momentum": lambda: fs.momentum_ascent(rho),
    "friendly_sam": lambda: fs.friendly_sam(
      rho, sigma=options.sigma, decay=options.decay
    ),
  }
  if options.name == "none":
    return None
  perturbation = makers[options.name]()
  if options.steps > 1:
    perturbation = fs.multi_step(perturbation, options.steps)
  if options.layers == "norm":
    perturbation = fs.only(perturbation, _norm_layers)
  return perturbation


def build_perturb(
  config: config_dict.ConfigDict,
  rho: optax.Schedule,
  seed: int | Array,
  num_steps: int,
) -> optax.GradientTransformation | None:
  """The perturbed gradient, or None where training is plain.

  Args:
    config: a checked configuration.
    rho: the radius, a schedule of the step.
    seed: what a random perturbation draws from.
    num_steps: updates in the run, of which a part may perturb.

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
  return fs.perturbed_gradient(perturbation, _build_combine(config))


def _build_combine(config: config_dict.ConfigDict) -> Combine | None:
  options = config.combine
  if options.name == "surrogate_gap":
    return fs.surrogate_gap(options.alpha, normalized=options.normalized)
  if options.name == "weighted":
    return fs.weighted(options.gamma)
  return None


def _norm_layers(params: PyTree) -> PyTree:
  """The mask of `norm_layers`, or a refusal where the model has none."""
  try:
    return fs.norm_layers(params)
  except ValueError as error:
    raise ConfigError(
      refusal(
        "config.perturbation.layers",
        "norm",
        "all where config.model.name has no normalisation layers",
      )
    ) from error
