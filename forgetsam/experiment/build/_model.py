"""From `config.model` to a module."""

import flax.linen as nn
import jax
from ml_collections import config_dict

from forgetsam import models
from forgetsam.experiment.config import ConfigError


def build_model(
  config: config_dict.ConfigDict,
  num_classes: int,
  image_shape: tuple[int, int, int] | None = None,
) -> nn.Module:
  """The model that `config.model` describes.

  Args:
    config: a checked configuration; options that are none keep the model's own
      defaults.
    num_classes: number of logits.
    image_shape: of the data set, `(height, width, channels)`; where given, the
      model must take such images.

  Returns:
    A Linen module.

  Raises:
    ConfigError: the model cannot take the data set's images.
  """
  options = {k: v for k, v in config.model.items() if v is not None}
  model = models.create(options.pop("name"), num_classes, **options)
  if image_shape is not None:
    try:
      jax.eval_shape(
        lambda key: models.initialise(model, key, image_shape),
        jax.random.key(0),
      )
    except ValueError as error:
      raise ConfigError(
        f"config.model.name={config.model.name!r} does not fit images of shape "
        f"{image_shape}\n  {error}"
      ) from error
  return model
