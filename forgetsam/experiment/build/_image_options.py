"""From `config.data` to what is done to images: crops, flips, normalisation."""

from typing import Any

import numpy as np
from absl import logging
from ml_collections import config_dict

from forgetsam import data
from forgetsam.experiment.config import KEYS, ConfigError, refusal


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
    fast_decode=options.fast_decode,
  )


def image_options(
  config: config_dict.ConfigDict, images: data.ImageData
) -> dict[str, Any]:
  """Options of how images are changed; none for other inputs."""
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
    if images.train.images.dtype == np.int32 and len(images.image_shape) > 1:
      logging.warning(
        "%s has inputs int32 %s, which are taken as they are: images are uint8",
        *(images.name, list(images.image_shape)),
      )
    return {}
  rows, _, channels = images.image_shape
  if rows in (1, 3) and channels > 4:
    logging.warning(
      "%s has images of %d rows and %d channels: channels come last",
      *(images.name, rows, channels),
    )
  if len(config.data.mean) not in (1, channels):
    raise ConfigError(
      f"config.data.mean={config.data.mean} does not fit\n"
      f"  allowed: one number, or one for each of {channels} channels"
    )
  return options
