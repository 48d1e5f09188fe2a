"""Random variables for any Linen module, without compiling its initialisers."""

import jax
import jax.numpy as jnp
import numpy as np


def draw_variables(module, image_shape, scale=0.5):
  """Draws all parameters and state from a fixed seed; variances positive."""
  images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  shapes = jax.eval_shape(module.init, jax.random.key(0), images)
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    x = scale * rng.normal(size=leaf.shape).astype(leaf.dtype)
    return jnp.exp(x) if path[-1].key == "var" else jnp.asarray(x)

  return jax.tree_util.tree_map_with_path(draw, shapes)
