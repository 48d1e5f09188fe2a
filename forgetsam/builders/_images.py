"""From `config.data` to splits and batches on the devices."""

import functools
from collections.abc import Callable, Iterator

import jax
from jax.sharding import NamedSharding
from ml_collections import config_dict

from forgetsam import data
from forgetsam.config import ConfigError

Batches = Iterator[dict[str, jax.Array]]


def build_data(config: config_dict.ConfigDict) -> data.ImageData:
  """Loads the data set that `config.data` describes.

  Args:
    config: a checked configuration.

  Returns:
    The splits, in memory.

  Raises:
    ConfigError: the configuration does not fit what was loaded.
  """
  options = config.data
  try:
    images = data.load(
      options.name,
      data_dir=options.dir,
      validation=options.validation,
      split_seed=options.split_seed,
      label_noise=options.label_noise,
      train_examples=options.train_examples,
    )
  except (OSError, ValueError) as error:
    raise ConfigError(
      f"config.data.name={options.name!r} cannot be loaded as config.data asks"
      f"\n  {error}"
    ) from error
  channels = images.image_shape[-1]
  if len(options.mean) not in (1, channels):
    raise ConfigError(
      f"config.data.mean={options.mean} does not fit\n"
      f"  allowed: one number, or one for each of {channels} channels"
    )
  if config.batch_size > len(images.train):
    raise ConfigError(
      f"config.batch_size={config.batch_size} is too large\n"
      f"  allowed: at most the {len(images.train)} training examples"
    )
  return images


def build_train_batches(
  config: config_dict.ConfigDict,
  split: data.Split,
  sharding: NamedSharding | None,
) -> Callable[[int, int], Batches]:
  """The training batches from one step to another, as a function of both."""
  host_batches = functools.partial(
    data.train_batches,
    split,
    batch_size=config.batch_size,
    seed=config.seed,
    mean=config.data.mean,
    std=config.data.std,
    flip=config.data.flip,
    crop_padding=config.data.crop_padding,
  )

  def batches(start: int, stop: int) -> Batches:
    host = host_batches(start_step=start, num_steps=stop - start)
    return data.prefetch_to_device(host, sharding)

  return batches


def build_eval_batches(
  config: config_dict.ConfigDict, sharding: NamedSharding | None
) -> Callable[[data.Split], Batches]:
  """The padded and masked batches of a split."""
  host_batches = functools.partial(
    data.eval_batches,
    batch_size=config.evaluation.batch_size,
    mean=config.data.mean,
    std=config.data.std,
  )

  def batches(split: data.Split) -> Batches:
    return data.prefetch_to_device(host_batches(split), sharding)

  return batches
