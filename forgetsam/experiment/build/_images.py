"""From `config.data` to splits, and to their batches on the devices."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Int64
from ml_collections import config_dict

from forgetsam import data
from forgetsam.experiment.config import KEYS, ConfigError, refusal
from forgetsam.experiment.run import on_main, process_shard

Batches = Iterator[dict[str, jax.Array]]


def build_data(config: config_dict.ConfigDict) -> data.ImageData:
  """Loads the data set that `config.data` describes into memory.

  Args:
    config: a checked configuration.

  Returns:
    The splits, in memory.

  Raises:
    ConfigError: the configuration does not fit what was loaded.
  """
  options = config.data
  if options.stream:
    raise ConfigError(
      refusal("config.data.stream", True, "false where sets are held in memory")
    )
  try:
    return data.load(
      options.name,
      data_dir=options.dir,
      validation=options.validation,
      split_seed=options.split_seed,
      label_noise=options.label_noise,
      train_examples=options.train_examples,
      test=options.test,
    )
  except (OSError, ValueError) as error:
    raise _cannot_load(config, error) from error


def build_sources(
  config: config_dict.ConfigDict,
  images: data.ImageData | None = None,
  *,
  job: bool = False,
) -> data.Sources:
  """The splits that `config.data` describes, and what is done to their images.

  Args:
    config: a checked configuration.
    images: the set, as `build_data` loads it; None loads or opens it.
    job: whether evaluation images have the size that `--job=evaluate` asks for.

  Returns:
    Splits that give batches, from memory or, with `config.data.stream`, from
    files.

  Raises:
    ConfigError: the configuration does not fit the set.
  """
  options = config.data
  if options.stream:
    sources = _streamed(config, job)
  else:
    images = build_data(config) if images is None else images
    sources = data.in_memory(images, **_processing(config, images))
  if sources.train is None:
    raise ConfigError(
      refusal(
        "config.data.name",
        options.name,
        "a set with a training split; others go into config.evaluation.sets",
      )
    )
  if config.batch_size > len(sources.train):
    raise ConfigError(
      f"config.batch_size={config.batch_size} is too large\n"
      f"  allowed: at most the {len(sources.train)} training examples"
    )
  return sources


def _streamed(config: config_dict.ConfigDict, job: bool) -> data.Sources:
  try:
    return data.stream(
      config.data.name,
      build_stream_options(config, job=job),
      data_dir=config.data.dir,
      validation=config.data.validation,
      train_examples=config.data.train_examples,
      agree=on_main,
    )
  except (OSError, ValueError) as error:
    raise _cannot_load(config, error) from error


def build_stream_options(
  config: config_dict.ConfigDict, *, job: bool = False
) -> data.StreamOptions:
  """Normalisation and crops of a set that is read from files.

  With `job`, evaluation images have the size that `--job=evaluate` asks for;
  where it asks for none, that of the evaluations during training.
  """
  options, scored = config.data, config.evaluation
  size, short_side = scored.image_size, scored.short_side
  if job:
    size = scored.job_image_size or size
    short_side = scored.job_short_side or short_side
  return data.StreamOptions(
    mean=options.mean,
    std=options.std,
    train_crop=data.RandomResizedCrop(
      size=options.image_size,
      area=options.crop_area,
      aspect=options.crop_aspect,
      flip=options.flip,
    ),
    eval_crop=data.CenterCrop(
      size=size, short_side=short_side, method=scored.resize_method
    ),
    shuffle_buffer=options.shuffle_buffer,
    threads=options.threads,
    skip_corrupt=options.skip_corrupt,
  )


def _cannot_load(
  config: config_dict.ConfigDict, error: Exception
) -> ConfigError:
  return ConfigError(
    f"config.data.name={config.data.name!r} cannot be loaded as config.data "
    f"asks\n  {error}"
  )


def _processing(
  config: config_dict.ConfigDict, images: data.ImageData
) -> dict[str, Any]:
  """What is done to images; nothing to inputs that are none."""
  names = ("mean", "std", "flip", "crop_padding")
  options = {name: config.data[name] for name in names}
  if not images.train.has_pixels:
    for name, value in options.items():
      if value != (default := KEYS[f"data.{name}"].default):
        inputs = images.train.images
        allowed = (
          f"{default!r} where inputs are no images, uint8 [n, height, width, "
          f"channels]; these are {inputs.dtype} {list(inputs.shape)}"
        )
        raise ConfigError(refusal(f"config.data.{name}", value, allowed))
    return {}
  channels = images.image_shape[-1]
  if len(config.data.mean) not in (1, channels):
    raise ConfigError(
      f"config.data.mean={config.data.mean} does not fit\n"
      f"  allowed: one number, or one for each of {channels} channels"
    )
  return options


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
    host = source.eval_batches(batch_size=batch_size, shard=process_shard())
    return data.prefetch_to_device(host, sharding)

  return batches
