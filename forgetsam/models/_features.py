"""What a layer inside a model gives."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def features(
  module: nn.Module, layer: str
) -> Callable[[Any, Any, Any], Float[Array, "batch features"]]:
  """A function to a layer's outputs, one row an example.

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
