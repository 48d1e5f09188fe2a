"""From the loss and perturbation of a config to functions and transforms."""

from collections.abc import Callable, Mapping

import optax
from jaxtyping import Array
from ml_collections import config_dict

import forgetsam as fs
from forgetsam._typing import AscentSignal, Loss, PyTree
from forgetsam.experiment.config import ConfigError, refusal
from forgetsam.perturbations import Combine

Seed = int | Array
_Maker = Callable[
  [optax.Schedule, Seed, config_dict.ConfigDict], optax.GradientTransformation
]

_LOSSES: Mapping[str, Callable[..., Loss]] = {
  "softmax_cross_entropy": fs.softmax_cross_entropy,
  "sigmoid_cross_entropy": fs.sigmoid_cross_entropy,
}
# From the radius, a seed and `config.perturbation`.
_PERTURBATIONS: Mapping[str, _Maker] = {
  "sam": lambda rho, *_: fs.sam(rho),
  "asam": lambda rho, _, o: fs.asam(rho, eta=o.eta, magnitude=o.magnitude),
  "random": lambda rho, seed, _: fs.random_perturbation(rho, seed),
  "momentum": lambda rho, *_: fs.momentum_ascent(rho),
  "friendly_sam": lambda rho, _, o: fs.friendly_sam(rho, o.sigma, o.decay),
}
# From `config.combine`.
_COMBINES: Mapping[str, Callable[[config_dict.ConfigDict], Combine | None]] = {
  "none": lambda _: None,
  "surrogate_gap": lambda o: fs.surrogate_gap(o.alpha, normalized=o.normalized),
  "weighted": lambda o: fs.weighted(o.gamma),
}


def build_loss(config: config_dict.ConfigDict) -> Loss:
  """The training loss of logits and labels."""
  return _LOSSES[config.loss.name](label_smoothing=config.loss.label_smoothing)


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
  config: config_dict.ConfigDict, rho: optax.Schedule, seed: Seed
) -> optax.GradientTransformation | None:
  """Maps ascent gradients to offsets; None where training is plain."""
  options = config.perturbation
  if options.name == "none":
    return None
  perturbation = _PERTURBATIONS[options.name](rho, seed, options)
  if options.steps > 1:
    perturbation = fs.multi_step(perturbation, options.steps)
  if options.layers == "norm":
    perturbation = fs.only(perturbation, _norm_layers)
  return perturbation


def build_perturb(
  config: config_dict.ConfigDict,
  rho: optax.Schedule,
  seed: Seed,
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
  combine = _COMBINES[config.combine.name](config.combine)
  return fs.perturbed_gradient(perturbation, combine)


def _norm_layers(params: PyTree) -> PyTree:
  try:
    return fs.norm_layers(params)
  except ValueError as error:
    allowed = "all where config.model.name has no normalisation layers"
    raise ConfigError(
      refusal("config.perturbation.layers", "norm", allowed)
    ) from error
