"""From a config to what is done to streamed images."""

from ml_collections import config_dict

from forgetsam import data


def build_stream_options(
  config: config_dict.ConfigDict, *, job: bool = False
) -> data.StreamOptions:
  """Normalisation and crops of a set that is read from files.

  Args:
    config: a checked configuration.
    job: whether evaluation images have the size that `--job=evaluate` asks for,
      `config.evaluation.job_image_size` and `job_short_side`; where these are
      none, that of the evaluations during training.

  Raises:
    ValueError: the crop is larger than what it is cut from.
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
