"""From `config.data` to batches on the devices."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Int64
from ml_collections import config_dict

from forgetsam import data
from forgetsam.experiment.config import ConfigError, reads_previous
from forgetsam.experiment.run import process_shard

Batches = Iterator[dict[str, jax.Array]]


def build_train_batches(
  config: config_dict.ConfigDict,
  source: data.BatchSource,
  sharding: NamedSharding | None,
) -> Callable[[int, int], Batches]:
  """The training batches from one step to another, as a function of both."""
  looks_back = reads_previous(config)

  def batches(start: int, stop: int) -> Batches:
    first = max(start - 1, 0) if looks_back else start
    try:
      host = source.train_batches(
        batch_size=config.batch_size,
        seed=config.seed,
        start_step=first,
        num_steps=stop - first,
        shard=process_shard(),
      )
    except ValueError as error:  # as many processes cannot share a batch
      raise ConfigError(
        f"config.batch_size={config.batch_size} is refused\n  {error}"
      ) from error
    on_devices = data.prefetch_to_device(host, sharding)
    if not looks_back:
      return on_devices
    previous = next(on_devices) if first < start else None
    return _with_previous(on_devices, previous)

  return batches


def _with_previous(
  batches: Batches, previous: dict[str, jax.Array] | None
) -> Iterator[dict[str, Any]]:
  for batch in batches:
    yield beside_previous(batch, batch if previous is None else previous)
    previous = batch


def beside_previous(
  batch: dict[str, Any], previous: dict[str, Any]
) -> dict[str, Any]:
  """A batch with the examples of the one before, for `sampa`."""
  examples = {name: previous[name] for name in ("image", "label")}
  return {**batch, "previous": examples}


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
