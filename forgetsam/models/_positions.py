"""Position embeddings for images of another size."""

import math

import jax
from jaxtyping import Float

from forgetsam.models._typing import NDArray

Grid = tuple[int, int]


def resize_positions(
  pos_embed: Float[NDArray, "1 tokens features"],
  grid: Grid,
  old_grid: Grid | None = None,
) -> Float[NDArray, "1 new_tokens features"]:
  """Interpolates position embeddings to another grid of patches.

  Bicubic and antialiased, each feature by itself; what keeps its grid comes
  back as it is.

  Args:
    pos_embed: one embedding per patch, row by row, without a class token.
    grid: rows and columns of patches wanted.
    old_grid: rows and columns of patches that `pos_embed` is for; None for a
      square.

  Returns:
    One embedding per patch of the new grid.

  Raises:
    ValueError: the number of embeddings is not that of the old grid.

  Example:
    >>> import numpy as np
    >>> resize_positions(np.ones((1, 49, 384), np.float32), (12, 12)).shape
    (1, 144, 384)
  """
  _, tokens, features = pos_embed.shape
  if old_grid is None:
    side = math.isqrt(tokens)
    old_grid = (side, side)
  if math.prod(old_grid) != tokens:
    raise ValueError(
      f"pos_embed has {tokens} positions, which old_grid={old_grid} does not; "
      "pass its rows and columns, and leave out a class token's position."
    )
  if grid == old_grid:
    return pos_embed
  images = pos_embed.reshape(1, *old_grid, features)
  images = jax.image.resize(
    images, (1, *grid, features), method="cubic", antialias=True
  )
  return images.reshape(1, math.prod(grid), features)
