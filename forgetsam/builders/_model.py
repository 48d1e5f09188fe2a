"""From `config.model` to a module."""

import flax.linen as nn
from ml_collections import config_dict

from forgetsam import models


def build_model(config: config_dict.ConfigDict, num_classes: int) -> nn.Module:
  """The model that `config.model` describes.

  Args:
    config: a checked configuration; options that are none keep the model's own
      defaults.
    num_classes: number of logits.

  Returns:
    A Linen module.
  """
  options = {k: v for k, v in config.model.items() if v is not None}
  return models.create(options.pop("name"), num_classes, **options)
