"""From `config.optimizer` and `config.schedule` to an optax chain."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax
from ml_collections import config_dict

import forgetsam as fs


def build_learning_rate(
  config: config_dict.ConfigDict, steps_per_epoch: int
) -> optax.Schedule:
  """Linear warm-up from zero, then decay to the smallest learning rate.

  Args:
    config: a checked configuration.
    steps_per_epoch: optimizer updates in an epoch.

  Returns:
    The learning rate as a function of the update count.
  """
  peak = config.optimizer.learning_rate
  low = config.schedule.min_learning_rate
  warmup = round(config.schedule.warmup_epochs * steps_per_epoch)
  rest = max(1, config.epochs * steps_per_epoch - warmup)
  if config.schedule.name == "linear":
    decay = optax.linear_schedule(peak, low, rest)
  else:
    decay = optax.cosine_decay_schedule(peak, rest, alpha=low / peak)
  if warmup == 0:
    return decay
  rise = optax.linear_schedule(0.0, peak, warmup)
  return optax.join_schedules([rise, decay], [warmup])


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


# From the learning rate and `config.optimizer`.
_OPTIMIZERS: Mapping[str, Callable[..., optax.GradientTransformation]] = {
  "adamw": lambda lr, o: optax.adamw(
    lr, weight_decay=o.weight_decay, mask=decays
  ),
  "sgdw": lambda lr, o: fs.sgdw(
    lr, momentum=o.momentum, weight_decay=o.weight_decay, mask=decays
  ),
}


def build_optimizer(
  config: config_dict.ConfigDict, learning_rate: optax.Schedule
) -> optax.GradientTransformation:
  """Chains clipping by the global norm, optimizer and shrink-and-perturb.

  Args:
    config: a checked configuration.
    learning_rate: a schedule of the update count.

  Returns:
    An optax chain.
  """
  options = config.optimizer
  chain: list[optax.GradientTransformation] = []
  if options.clip is not None:
    chain.append(optax.clip_by_global_norm(options.clip))
  chain.append(_OPTIMIZERS[options.name](learning_rate, options))
  if options.shrink_and_perturb is not None:
    factor, peak = options.shrink_and_perturb, options.learning_rate
    # At the number of updates completed, the schedule gives the learning rate
    # of the next step, before which the official code shrinks.
    chain.append(
      fs.shrink_and_perturb(lambda count: factor * learning_rate(count) / peak)
    )
  return optax.chain(*chain)
