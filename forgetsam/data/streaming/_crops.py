"""The box that a random resized crop cuts out of an image."""

import math
from typing import NamedTuple

from forgetsam.data._tensorflow import tf
from forgetsam.data.streaming._options import RandomResizedCrop

_TRIES = 10
NUM_DRAWS = 4 * _TRIES + 1


class Box(NamedTuple):
  """A rectangle of pixels: int32 scalars."""

  top: "tf.Tensor"
  left: "tf.Tensor"
  height: "tf.Tensor"
  width: "tf.Tensor"


def random_box(
  crop: RandomResizedCrop,
  height: "tf.Tensor",
  width: "tf.Tensor",
  draws: "tf.Tensor",
) -> "tuple[Box, tf.Tensor]":
  """Draws the box to cut out of an image, and whether to mirror it.

  Of ten draws of area and aspect, the first that lies within the image. Where
  none does, the largest box in the middle with an aspect that is allowed.
  `draws` are `NUM_DRAWS` random numbers in [0, 1).
  """
  draws = tf.cast(draws, tf.float64)
  area, log_aspect, row, column = tf.unstack(
    tf.reshape(draws[:-1], [4, _TRIES])
  )
  pixels = tf.cast(height * width, tf.float64)
  area = pixels * (crop.area[0] + (crop.area[1] - crop.area[0]) * area)
  lowest, highest = (math.log(aspect) for aspect in crop.aspect)
  aspect = tf.exp(lowest + (highest - lowest) * log_aspect)
  heights = tf.cast(tf.round(tf.sqrt(area / aspect)), tf.int32)
  widths = tf.cast(tf.round(tf.sqrt(area * aspect)), tf.int32)
  fits = (heights > 0) & (heights <= height) & (widths > 0) & (widths <= width)
  # The first True; 0 where there is none.
  chosen = tf.argmax(tf.cast(fits, tf.int32), output_type=tf.int32)

  def corner(draws: "tf.Tensor", space: "tf.Tensor") -> "tf.Tensor":
    draw = draws[chosen] * tf.cast(space + 1, tf.float64)
    return tf.cast(draw, tf.int32)  # rounds down

  drawn = Box(
    corner(row, height - heights[chosen]),
    corner(column, width - widths[chosen]),
    heights[chosen],
    widths[chosen],
  )
  fallback = _central_box(crop, height, width)
  box = Box(
    *(
      tf.where(fits[chosen], *sides)
      for sides in zip(drawn, fallback, strict=True)
    )
  )
  return box, draws[-1] < 0.5


def _central_box(
  crop: RandomResizedCrop, height: "tf.Tensor", width: "tf.Tensor"
) -> Box:
  def scaled(side: "tf.Tensor", factor: float) -> "tf.Tensor":
    return tf.cast(tf.round(tf.cast(side, tf.float64) * factor), tf.int32)

  lowest, highest = crop.aspect
  new_height = tf.maximum(1, tf.minimum(height, scaled(width, 1 / lowest)))
  new_width = tf.maximum(1, tf.minimum(width, scaled(height, highest)))
  return Box(
    (height - new_height) // 2, (width - new_width) // 2, new_height, new_width
  )
