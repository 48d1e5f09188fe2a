"""From encoded bytes to the normalised pixels of a crop."""

from collections.abc import Callable
from typing import Any

import numpy as np

from forgetsam.data._batches import PerChannel, channel_statistics
from forgetsam.data._tensorflow import tf
from forgetsam.data.files import DCT, decode, decode_other, is_jpeg
from forgetsam.data.streaming._crops import random_box
from forgetsam.data.streaming._options import CenterCrop, RandomResizedCrop


def training_image(
  encoded: "tf.Tensor",
  crop: RandomResizedCrop,
  draws: "tf.Tensor",
  *,
  channels: int,
) -> "tf.Tensor":
  """Decodes a random crop, float32 [size, size, channels], 0 to 255.

  Of a JPEG, no more than the crop is decoded. `draws` are `random_box`'s.
  """

  def from_jpeg() -> "tuple[tf.Tensor, tf.Tensor]":
    shape = tf.io.extract_jpeg_shape(encoded)
    box, flip = random_box(crop, shape[0], shape[1], draws)
    image = tf.io.decode_and_crop_jpeg(
      encoded, tf.stack(box), channels=channels, dct_method=DCT
    )
    return image, flip

  def from_other() -> "tuple[tf.Tensor, tf.Tensor]":
    image = decode_other(encoded, channels)
    shape = tf.shape(image)
    box, flip = random_box(crop, shape[0], shape[1], draws)
    return tf.image.crop_to_bounding_box(image, *box), flip

  image, flip = tf.cond(is_jpeg(encoded, channels), from_jpeg, from_other)
  image.set_shape([None, None, channels])
  shape, size = tf.shape(image), crop.size
  pixels = _resize(image, size, shape[:2], [size, size], [0, 0], "bilinear")
  if not crop.flip:
    return pixels
  # Not by a slice with stride -1, which is thirty times slower.
  return tf.cond(flip, lambda: tf.reverse(pixels, [1]), lambda: pixels)


def evaluation_image(
  encoded: "tf.Tensor",
  crop: CenterCrop,
  *,
  channels: int,
) -> "tf.Tensor":
  """Decodes an image and cuts out its middle, after `crop`'s resize.

  Returns float32 [size, size, channels], whole numbers from 0 to 255; the whole
  image where `crop.short_side` is None.
  """
  image = decode(encoded, channels)
  if crop.short_side is None:
    return tf.cast(image, tf.float32)
  shape = tf.shape(image)[:2]
  # The longer side is rounded down, the crop's corner to the nearest pixel.
  resized = crop.short_side * shape // tf.reduce_min(shape)
  corner = tf.cast(tf.round((resized - crop.size) / 2), tf.int32)
  return _resize(image, crop.size, shape, resized, corner, crop.method)


def normaliser(
  mean: PerChannel, std: PerChannel, channels: int
) -> Callable[[Any], Any]:
  """Makes the function (pixels / 255 - mean) / std, of float32 [h, w, c]."""
  mean_, std_ = (
    np.broadcast_to(numbers, [channels])
    for numbers in channel_statistics(mean, std, channels)
  )
  scale, shift = np.float32(1 / 255) / std_, mean_ / std_

  def normalise(pixels: "tf.Tensor") -> "tf.Tensor":
    # Row by row: along channels alone, three at a time, it takes four times as
    # long. Widths are known only where crops have one size.
    width = pixels.shape[1]
    if width is None:
      return pixels * scale - shift
    rows = tf.reshape(pixels, [-1, width * channels])
    rows = rows * np.tile(scale, width) - np.tile(shift, width)
    return tf.reshape(rows, [-1, width, channels])

  return normalise


def _resize(
  image: "tf.Tensor",
  size: int,
  shape: "tf.Tensor",
  resized: "tf.Tensor | list[int]",
  corner: "tf.Tensor | list[int]",
  method: str,
) -> "tf.Tensor":
  """Resizes `shape` to `resized` and computes only the crop at `corner`.

  As Pillow does it, first the rows' direction, then the columns', with whole
  numbers between.
  """
  channels = image.shape[-1]
  scale = tf.cast(resized, tf.float32) / tf.cast(shape, tf.float32)
  offset = tf.cast(corner, tf.float32)

  def resize_first_axis(pixels: "tf.Tensor", axis: int) -> "tf.Tensor":
    # One pixel wide, with many channels: the operation's inner loop, which runs
    # over channels, then fills vector registers.
    rows = tf.raw_ops.ScaleAndTranslate(
      images=tf.reshape(pixels, [1, tf.shape(pixels)[0], 1, -1]),
      size=[size, 1],
      scale=tf.stack([scale[axis], 1.0]),
      translation=tf.stack([-offset[axis], 0.0]),
      kernel_type={"bilinear": "triangle", "bicubic": "keyscubic"}[method],
      antialias=True,
    )
    rows = tf.reshape(rows, [size, -1, channels])
    if method == "bicubic":  # It overshoots.
      rows = tf.clip_by_value(rows, 0.0, 255.0)
    return tf.round(rows)

  columns = resize_first_axis(tf.transpose(image, [1, 0, 2]), 1)
  columns = tf.transpose(tf.cast(columns, tf.uint8), [1, 0, 2])
  return tf.ensure_shape(resize_first_axis(columns, 0), [size, size, channels])
