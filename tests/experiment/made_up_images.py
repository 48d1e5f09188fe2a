"""Images for experiments that are built and not trained for long."""

import numpy as np

from forgetsam import data


def made_up(
  channels: int = 1, side: int = 8, train: int = 40
) -> data.ImageData:
  """Random images of ten classes; twenty in each split but training's."""
  rng = np.random.RandomState(0)

  def split(count: int) -> data.Split:
    return data.Split(
      rng.randint(0, 256, (count, side, side, channels)).astype(np.uint8),
      (np.arange(count) % 10).astype(np.int32),
      np.arange(count),
    )

  shape = (side, side, channels)
  return data.ImageData("digits", 10, shape, split(train), split(20), split(20))
