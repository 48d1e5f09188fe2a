"""From `config.data` to batches on the devices."""

from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Int64
from ml_collections import config_dict

from forgetsam import data
from forgetsam.experiment.config import ConfigError
from forgetsam.experiment.run import process_shard

Batches = Iterator[dict[str, jax.Array]]


def build_train_batches(
  config: config_dict.ConfigDict,
  source: data.BatchSource,
  sharding: NamedSharding | None,
) -> Callable[[int, int], Batches]:
  """The training batches from one step to another, as a function of both."""

  def batches(start: int, stop: int) -> Batches:
    try:
      host = source.train_batches(
        batch_size=config.batch_size,
        seed=config.seed,
        start_step=start,
        num_steps=stop - start,
        shard=process_shard(),
      )
    except ValueError as error:  # as many processes cannot share a batch
      raise ConfigError(
        f"config.batch_size={config.batch_size} is refused\n  {error}"
      ) from error
    return data.prefetch_to_device(host, sharding)

  return batches


def build_train_indices(
  config: config_dict.ConfigDict, source: data.BatchSource
) -> Callable[[int], Int64[np.ndarray, " b"]]:
  """Positions of a training step's examples, as a function of the step."""
  return lambda step: source.train_indices(
    batch_size=config.batch_size, seed=config.seed, step=step
  )


def build_eval_batches(
  config: config_dict.ConfigDict, sharding: NamedSharding | None
) -> Callable[[data.BatchSource], Batches]:
  """The padded and masked batches of a split."""
  batch_size = config.evaluation.batch_size

  def batches(source: data.BatchSource) -> Batches:
    host = source.eval_batches(
      batch_size=batch_size, shard=process_shard(), groups=True
    )
    return data.prefetch_to_device(host, sharding)

  return batches
