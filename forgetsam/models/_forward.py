"""Linen modules as pure functions of parameters, state and images."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

Params = Any
ModelState = dict[str, Any]  # by collection, such as "batch_stats"
Forward = Callable[..., tuple[Array, ModelState]]


def forward(module: nn.Module) -> Forward:
  """Makes the pure function that a train step takes from a Linen module.

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
    images: Any,  # any input that the module takes
    *,
    train: bool,
    key: Key[Array, ""] | None = None,
  ) -> tuple[Float[Array, "*batch classes"], ModelState]:
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


def features(
  module: nn.Module, layer: str
) -> Callable[[Any, Any, Any], Float[Array, "batch features"]]:
  """Makes a function to a layer's outputs, one row an example.

  Args:
    module: a Linen model.
    layer: a submodule's name, with a slash between levels, as in
      "block0/attention".

  Returns:
    `(params, model_state, images) -> features`, in evaluation mode; axes after
    the first are laid side by side. It raises a ValueError that lists the
    layers where there is no such layer, or it is called more than once.

  Example:
    >>> import forgetsam as fs
    >>> module = fs.models.create("mlp", 3, hidden=(5,))
    >>> params, state = fs.models.initialise(
    ...   module, jax.random.key(0), (2, 2, 1)
    ... )
    >>> features(module, "Dense_0")(params, state, jnp.ones((4, 2, 2, 1))).shape
    (4, 5)
  """

  def apply(params: Any, model_state: Any, images: Any) -> Array:
    _, captured = module.apply(
      {"params": params, **model_state},
      images,
      train=False,
      capture_intermediates=True,
      mutable=["intermediates"],
    )
    found = {
      "/".join(key.key for key in path[:-1]): value
      for path, value in jax.tree_util.tree_leaves_with_path(
        captured["intermediates"], is_leaf=lambda x: isinstance(x, tuple)
      )
    }
    outputs = found.get(layer)
    if outputs is None or len(outputs) != 1:
      names = ", ".join(name for name in sorted(found) if name)
      raise ValueError(f"layer={layer!r} must be one of: {names}")
    (output,) = outputs
    return output.reshape(len(output), -1).astype(jnp.float32)

  return apply
