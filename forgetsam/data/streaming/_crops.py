"""Where training and evaluation cut an image, and to which size it goes."""

import dataclasses
import math
from typing import TYPE_CHECKING, NamedTuple

from forgetsam.data._tensorflow import import_tensorflow

if TYPE_CHECKING:
  import tensorflow as tf

_TRIES = 10
NUM_DRAWS = 4 * _TRIES + 1
_METHODS = ("bilinear", "bicubic")


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop:
  """A training crop: random area, aspect and place, resized bilinearly.

  Attributes:
    size: height and width of the result, in pixels.
    area: lowest and highest share of the image's area.
    aspect: lowest and highest width / height; its logarithm is uniform.
    flip: whether to mirror half of the crops left to right.

  Raises:
    ValueError: where a value is impossible.
  """

  size: int = 224
  area: tuple[float, float] = (0.05, 1.0)
  aspect: tuple[float, float] = (3 / 4, 4 / 3)
  flip: bool = True

  def __post_init__(self) -> None:
    if self.size < 1:
      raise ValueError(f"size={self.size} must be at least 1 pixel")
    if not 0 < self.area[0] <= self.area[1] <= 1:
      raise ValueError(f"area={self.area} must be 0 < lowest <= highest <= 1")
    if not 0 < self.aspect[0] <= self.aspect[1] < math.inf:
      raise ValueError(f"aspect={self.aspect} must be 0 < lowest <= highest")


@dataclasses.dataclass(frozen=True)
class CenterCrop:
  """An evaluation crop: the middle of the image after a resize.

  Attributes:
    size: height and width of the result, in pixels.
    short_side: what the image's shorter side is resized to first; None takes
      the image as it is, which must then have the same size as all others.
    method: "bicubic" or "bilinear", both antialiased.

  Raises:
    ValueError: where a value is impossible.
  """

  size: int = 224
  short_side: int | None = 256
  method: str = "bicubic"

  def __post_init__(self) -> None:
    if self.size < 1:
      raise ValueError(f"size={self.size} must be at least 1 pixel")
    if self.short_side is not None and self.short_side < self.size:
      raise ValueError(
        f"short_side={self.short_side} must be at least size={self.size}, or"
        " None to take images as they are"
      )
    if self.method not in _METHODS:
      raise ValueError(f"method={self.method!r} must be one of {_METHODS}")


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
  """The part of an image to cut out, and whether to mirror it.

  Of ten draws of area and aspect, the first that lies within the image. Where
  none does, the largest middle part with an aspect that is allowed.

  Args:
    crop: what is allowed.
    height: the image's, in pixels.
    width: the image's, in pixels.
    draws: `NUM_DRAWS` random numbers in [0, 1).
  """
  tf = import_tensorflow()
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

  def place(draws: "tf.Tensor", space: "tf.Tensor") -> "tf.Tensor":
    draw = draws[chosen] * tf.cast(space + 1, tf.float64)
    return tf.cast(draw, tf.int32)  # rounds down

  drawn = Box(
    place(row, height - heights[chosen]),
    place(column, width - widths[chosen]),
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
  tf = import_tensorflow()

  def scaled(side: "tf.Tensor", factor: float) -> "tf.Tensor":
    return tf.cast(tf.round(tf.cast(side, tf.float64) * factor), tf.int32)

  lowest, highest = crop.aspect
  new_height = tf.maximum(1, tf.minimum(height, scaled(width, 1 / lowest)))
  new_width = tf.maximum(1, tf.minimum(width, scaled(height, highest)))
  return Box(
    (height - new_height) // 2, (width - new_width) // 2, new_height, new_width
  )
