"""From `config.optimizer` and `config.schedule` to an optax chain."""

from typing import Any

import jax
import optax
from ml_collections import config_dict

import forgetsam as fs
from forgetsam.experiment.build._trained import build_trained
from forgetsam.experiment.config import build_component


def build_learning_rate(
  config: config_dict.ConfigDict, steps_per_epoch: int
) -> optax.Schedule:
  """The learning rate that `config.schedule` describes.

  Args:
    config: a checked configuration.
    steps_per_epoch: optimizer updates in an epoch.

  Returns:
    The learning rate as a function of the update count.
  """
  num_steps = config.epochs * steps_per_epoch
  return build_component(
    config,
    "schedule",
    warmup_steps=round(config.schedule.warmup_epochs * steps_per_epoch),
    steps_per_epoch=steps_per_epoch,
    num_steps=num_steps,
    decay_steps=num_steps,  # optax's names
    transition_steps=num_steps,
  )


_SPARED = ("bias", "pos_embed")


def decays(params: Any) -> Any:
  """Marks the arrays that weight decay shrinks: matrices and kernels.

  Biases (also those of attention, which have an axis for heads), norms and
  every other array with one axis are spared, and position embeddings.

  Args:
    params: a tree of parameters.

  Returns:
    A tree of booleans with the structure of `params`.
  """

  def decay(path: tuple[Any, ...], w: jax.Array) -> bool:
    name = jax.tree_util.keystr(path[-1:])
    return w.ndim > 1 and not any(part in name for part in _SPARED)

  return jax.tree_util.tree_map_with_path(decay, params)


def build_optimizer(
  config: config_dict.ConfigDict, learning_rate: optax.Schedule
) -> optax.GradientTransformation:
  """Chains clipping, optimizer, shrink-and-perturb and the weights' average.

  With `config.combine.decoupled`, the first two are those of the loss alone.

  Args:
    config: a checked configuration.
    learning_rate: a schedule of the update count.

  Returns:
    An optax chain; where `train_only` names parameters, of these alone: the
    others have no updates and no state.
  """
  options = config.optimizer
  chain: list[optax.GradientTransformation] = []
  if options.clip is not None:
    chain.append(optax.clip_by_global_norm(options.clip))
  if options.clip_adaptive is not None:
    chain.append(optax.adaptive_grad_clip(options.clip_adaptive))
  chain.append(
    build_component(
      config,
      "optimizer",
      learning_rate=learning_rate,
      mask=decays,
      weight_decay_mask=decays,
    )
  )
  if config.combine.decoupled:
    gamma = config.combine.gamma
    chain = [fs.decoupled_wsam(optax.chain(*chain), learning_rate, gamma)]
  if options.shrink_and_perturb is not None:
    factor, peak = options.shrink_and_perturb, options.learning_rate
    # At the number of updates completed, the schedule gives the learning rate
    # of the next step, before which the official code shrinks.
    chain.append(
      fs.shrink_and_perturb(lambda count: factor * learning_rate(count) / peak)
    )
  if options.ema is not None:
    chain.append(fs.params_ema(options.ema))
  if options.train_only is None:
    return optax.chain(*chain)
  trained = build_trained(config)
  return optax.partition(
    {"trained": optax.chain(*chain), "frozen": optax.set_to_zero()},
    lambda params: jax.tree.map(
      lambda train: "trained" if train else "frozen", trained(params)
    ),
  )
