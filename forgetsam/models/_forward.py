"""Linen modules as pure functions of parameters, state and images."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from forgetsam.models._typing import (
  Forward,
  Logits,
  ModelState,
  Params,
)


def forward(module: nn.Module) -> Forward:
  """The function that a train step wants, made from a Linen module.

  Args:
    module: a module with `module.apply(variables, images, train=...)`.

  Returns:
    `forward(params, model_state, images, *, train, key=None)`, which returns
    `(logits, model_state)`. `model_state` holds all collections but "params",
    such as `{"batch_stats": ...}`, or is empty; where `train` is false it comes
    back as it is. `key` seeds dropout: a model that has any needs it where
    `train` is true.

  Example:
    >>> class Model(nn.Module):
    ...   @nn.compact
    ...   def __call__(self, images, train=False):
    ...     return nn.Dense(3)(images.reshape(len(images), -1))
    >>> params, model_state = initialise(Model(), jax.random.key(0), (2, 2, 1))
    >>> logits, model_state = forward(Model())(
    ...   params, model_state, jnp.ones((5, 2, 2, 1)), train=False
    ... )
    >>> logits.shape, model_state
    ((5, 3), {})
  """

  def apply(
    params: Params,
    model_state: ModelState,
    images: Any,  # whatever the module takes
    *,
    train: bool,
    key: Key[Array, ""] | None = None,
  ) -> tuple[Logits, ModelState]:
    variables = {"params": params, **model_state}
    if not train:
      logits: Any = module.apply(variables, images, train=False)
      return logits, model_state
    logits, updates = module.apply(
      variables,
      images,
      train=True,
      rngs=None if key is None else {"dropout": key},
      mutable=list(model_state),
    )
    return logits, dict(updates)

  return apply


def initialise(
  module: nn.Module, key: Key[Array, ""], image_shape: Sequence[int]
) -> tuple[Params, ModelState]:
  """Draws a Linen module's parameters, and its state before any batch.

  Args:
    module: a module with `module.apply(variables, images, train=...)`.
    key: a typed key, as `jax.random.key` makes it.
    image_shape: height, width and channels of an image.

  Returns:
    The parameters, and all other collections, such as
    `{"batch_stats": ...}`, or an empty dictionary.
  """

  @jax.jit
  def init(key: Key[Array, ""]) -> dict[str, Any]:
    images = jnp.zeros((1, *image_shape), jnp.float32)
    return dict(module.init(key, images, train=False))

  model_state = init(key)
  return model_state.pop("params"), model_state
