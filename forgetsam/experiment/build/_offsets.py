"""From a config to the perturbations whose forgetting is measured."""

import jax
import optax
from ml_collections import config_dict

import forgetsam as fs
from forgetsam._typing import AscentSignal
from forgetsam.experiment.build._perturbation import (
  build_ascent,
  build_loss,
  build_perturbation,
)

Offset = tuple[AscentSignal, optax.GradientTransformation]


def build_common_offsets(
  config: config_dict.ConfigDict, num_classes: int
) -> dict[str, Offset]:
  """SAM, OBF and a random direction of fixed radii, to compare networks by."""
  loss = fs.loss_ascent(build_loss(config, num_classes))
  options = config.forgetting
  bias = fs.output_bias_forgetting(
    lam=config.ascent.lam,
    gamma=config.ascent.gamma,
    activation=config.ascent.activation,
  )
  return {
    "sam": (loss, fs.sam(options.sam_rho)),
    "obf": (bias, fs.sam(options.obf_rho)),
    "random": (loss, fs.random_perturbation(options.random_rho, seed=0)),
  }


def build_offsets(
  config: config_dict.ConfigDict, num_classes: int
) -> dict[str, Offset]:
  """The common offsets, and the run's own at its largest radius, as "own".

  A perturbation along the momentum is not among them: the optimizer's state,
  not the micro-batch, decides it.
  """
  common = build_common_offsets(config, num_classes)
  rho = optax.constant_schedule(config.perturbation.rho)
  own = build_perturbation(config, rho, config.seed)
  if own is None or config.perturbation.name == "momentum":
    return common
  return {"own": (build_ascent(config, num_classes), own), **common}


def draw_key(config: config_dict.ConfigDict) -> jax.Array:
  """The key of probes and micro-batches: the same for all networks."""
  return jax.random.key(config.data.split_seed)
