"""From `config.model` to a module."""

from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax
from ml_collections import config_dict

from forgetsam import data, models
from forgetsam.experiment.config import ConfigError, build_component

# Of a micro-batch's keys, the one that augmentation draws from.
_AUGMENTATION = 0x617567


def build_model(
  config: config_dict.ConfigDict,
  num_classes: int,
  inputs: Any = None,
) -> nn.Module:
  """The model that `config.model` describes.

  Args:
    config: a checked configuration; options that are none keep the model's own
      defaults.
    num_classes: number of logits.
    inputs: the shape of one example's, or a tree of them, as
      `models.initialise` takes it; where given, the model must take such.

  Returns:
    A Linen module.

  Raises:
    ConfigError: the model cannot take the data set's inputs.
  """
  model = build_component(config, "model", num_classes=num_classes, rngs=None)
  if not isinstance(model, nn.Module):  # NNX's, already made
    made = model
    model = models.from_nnx(lambda rngs: made)
  if inputs is not None:
    try:
      jax.eval_shape(
        lambda key: models.initialise(model, key, inputs),
        jax.random.key(0),
      )
    except Exception as error:  # of a model that may not be ours
      raise ConfigError(
        f"config.model.name={config.model.name!r} does not fit "
        f"{_in_words(inputs)}\n  {error}"
      ) from error
  return model


def input_spec(sources: data.Sources) -> jax.ShapeDtypeStruct:
  """One example's inputs, as `models.initialise` and `build_model` take it."""
  return jax.ShapeDtypeStruct(sources.image_shape, sources.image_dtype)


def _in_words(inputs: Any) -> str:
  if isinstance(inputs, jax.ShapeDtypeStruct):
    if inputs.dtype != "float32":
      return f"{inputs.dtype} inputs of shape {inputs.shape}"
    inputs = inputs.shape
  return f"images of shape {inputs}"


def build_train_forward(
  config: config_dict.ConfigDict, forward: Any
) -> Callable[..., Any]:
  """The forward pass behind `config.augmentation`, which changes inputs.

  Both passes of a micro-batch share a key, and so what is drawn from it.
  """
  augment = build_component(config, "augmentation")
  if augment is None:
    return cast("Callable[..., Any]", forward)

  def augmented(
    params: Any, model_state: Any, images: Any, *, train: bool, key: Any
  ) -> Any:
    if train:
      images = augment(images, jax.random.fold_in(key, _AUGMENTATION))
    return forward(params, model_state, images, train=train, key=key)

  return augmented


def build_metrics(
  config: config_dict.ConfigDict, num_classes: int
) -> Callable[..., dict[str, Any]]:
  """The scores of outputs, labels and weights that stand beside the loss."""
  metrics: Callable[..., dict[str, Any]] = build_component(
    config, "metric", num_classes=num_classes
  )
  return metrics
