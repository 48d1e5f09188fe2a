"""From `config.data` to splits."""

import dataclasses
from typing import Any

from absl import logging
from ml_collections import config_dict

from forgetsam import data
from forgetsam.experiment.build._image_options import (
  build_stream_options,
  image_options,
)
from forgetsam.experiment.config import (
  ConfigError,
  build_component,
  is_module_attribute,
  refusal,
)
from forgetsam.experiment.run import on_main


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
    held = "false where sets are held in memory"
    raise ConfigError(refusal("config.data.stream", True, held))
  own = _open(config)
  if own is None or not _is_large(config, own.num_bytes):
    found = _find(config, own)
    if not isinstance(found, data.ImageData):
      allowed = "a function that gives arrays, where sets are held in memory"
      raise ConfigError(refusal("config.data.name", options.name, allowed))
    if found.train.in_memory:
      return found
  allowed = f"what {options.name} takes: it must be in memory"
  raise ConfigError(
    refusal("config.data.memory_limit", options.memory_limit, allowed)
  )


def _load(
  config: config_dict.ConfigDict, own: data.OwnSet | None
) -> data.ImageData:
  options = config.data
  try:
    return data.load(
      own or options.name,
      data_dir=options.dir,
      label_noise=options.label_noise,
      memory_limit=options.memory_limit,
      **_choices(config),
    )
  except (OSError, ValueError) as error:
    raise _cannot_load(config, error) from error


def _choices(config: config_dict.ConfigDict) -> dict[str, Any]:
  names = ("validation", "split_seed", "train_examples", "test")
  return {name: config.data[name] for name in names}


def _made(config: config_dict.ConfigDict) -> data.ImageData | data.Sources:
  """Calls the function that `config.data.name` names."""
  options = config.data
  made = build_component(config, "data")
  if isinstance(made, data.ImageData | data.Sources):
    if made.identity is None:
      return made
    # By the name that leads here again, not that of what it was made of.
    identity = made.identity._replace(name=options.name)
    return dataclasses.replace(made, identity=identity)
  if options.stream:
    allowed = (
      f"false where {options.name} gives arrays, or data.Sources from it"
    )
    raise ConfigError(refusal("config.data.stream", True, allowed))
  try:
    return data.from_arrays(
      made,
      name=options.name,
      label_noise=options.label_noise,
      memory_limit=options.memory_limit,
      **_choices(config),
    )
  except ValueError as error:
    raise _cannot_load(config, error) from error


def is_streamed(config: config_dict.ConfigDict) -> bool:
  """Whether images are read from files as needed, with crops.

  Either `config.data.stream` asks for it, or images in files of one's own
  exceed `config.data.memory_limit`. Arrays are read without crops.

  Args:
    config: a checked configuration.

  Raises:
    ConfigError: the set is not there, or keys need it in memory.
  """
  return bool(config.data.stream) or _streams(config, _open(config))


def _open(config: config_dict.ConfigDict) -> data.OwnSet | None:
  """The files that `config.data.name` means; None where it is no path."""
  if is_module_attribute(config.data.name):
    return None
  try:
    return data.open_own(config.data.name)
  except (OSError, ValueError) as error:
    raise _cannot_load(config, error) from error


def _is_large(config: config_dict.ConfigDict, num_bytes: int) -> bool:
  return bool(num_bytes > config.data.memory_limit * 2**30)


def _streams(config: config_dict.ConfigDict, own: data.OwnSet | None) -> bool:
  options = config.data
  if options.stream or own is None or own.images is None:
    return bool(options.stream)
  limit = f"config.data.memory_limit={options.memory_limit:g}"
  if not _is_large(config, own.num_bytes):
    return False
  for key in ("label_noise", "crop_padding"):
    if options[key]:
      allowed = f"0 where {options.name} is streamed, or a larger limit than"
      raise ConfigError(
        refusal(f"config.data.{key}", options[key], f"{allowed} {limit}")
      )
  return True


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
    Splits that give batches, from memory or, as `is_streamed` says, from
    files.

  Raises:
    ConfigError: the configuration does not fit the set.
  """
  options = config.data
  found: data.ImageData | data.Sources | None = images
  if found is None:
    found = _find(config, _open(config), job)
  sources = (
    data.in_memory(found, **image_options(config, found))
    if isinstance(found, data.ImageData)
    else found
  )
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


def _find(
  config: config_dict.ConfigDict, own: data.OwnSet | None, job: bool = False
) -> data.ImageData | data.Sources:
  if is_module_attribute(config.data.name):
    return _made(config)
  streamed = _streams(config, own)
  if own is not None and own.images is not None:
    logging.info(
      "%s is %s: decoded, its images take about %.3g MiB (%s=%g)",
      config.data.name,
      "streamed" if streamed else "held in memory",
      own.num_bytes / 2**20,
      "config.data.memory_limit",
      config.data.memory_limit,
    )
  if not streamed:
    return _load(config, own)
  try:
    return data.stream(
      own or config.data.name,
      build_stream_options(config, job=job),
      data_dir=config.data.dir,
      agree=on_main,
      **_choices(config),
    )
  except (OSError, ValueError) as error:
    raise _cannot_load(config, error) from error


def _cannot_load(
  config: config_dict.ConfigDict, error: Exception
) -> ConfigError:
  return ConfigError(
    f"config.data.name={config.data.name!r} cannot be loaded as config.data "
    f"asks\n  {error}"
  )
