"""From encoded bytes to the normalised pixels of a crop."""

import functools
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
  fast: bool = False,
) -> "tf.Tensor":
  """Decodes a random crop, float32 [size, size, channels], 0 to 255.

  Of a JPEG, no more than the crop is decoded. `draws` are `random_box`'s. With
  `fast`, a JPEG is decoded at its own smaller scales, to `size` or more.
  """
  size = crop.size

  def from_jpeg() -> "tuple[tf.Tensor, ...]":
    shape = tf.io.extract_jpeg_shape(encoded)
    box, flip = random_box(crop, shape[0], shape[1], draws)

    def at(ratio: int) -> "tuple[tf.Tensor, ...]":
      corner, sides = tf.stack(box[:2]), tf.stack(box[2:])
      first = corner // ratio  # the window that covers the box
      window = tf.concat([first, -(-(corner + sides) // ratio) - first], 0)
      image = tf.io.decode_and_crop_jpeg(
        encoded, window, channels=channels, ratio=ratio, dct_method=DCT
      )
      sides = tf.cast(sides, tf.float32) / ratio
      start = tf.cast(corner, tf.float32) / ratio - tf.cast(first, tf.float32)
      return image, flip, sides, start * (size / sides)

    return _at_scale(at, tf.minimum(box.height, box.width), size, fast)

  def from_other() -> "tuple[tf.Tensor, ...]":
    image = decode_other(encoded, channels)
    shape = tf.shape(image)
    box, flip = random_box(crop, shape[0], shape[1], draws)
    sides = tf.cast(tf.stack(box[2:]), tf.float32)
    image = tf.image.crop_to_bounding_box(image, *box)
    return image, flip, sides, tf.zeros([2])

  image, flip, sides, corner = tf.cond(
    is_jpeg(encoded, channels), from_jpeg, from_other
  )
  image.set_shape([None, None, channels])
  pixels = _resize(image, size, sides, [size, size], corner, "bilinear")
  if not crop.flip:
    return pixels
  # Not by a slice with stride -1, which is thirty times slower.
  return tf.cond(flip, lambda: tf.reverse(pixels, [1]), lambda: pixels)


def evaluation_image(
  encoded: "tf.Tensor",
  crop: CenterCrop,
  *,
  channels: int,
  fast: bool = False,
) -> "tf.Tensor":
  """Decodes an image and cuts out its middle, after `crop`'s resize.

  Returns float32 [size, size, channels], whole numbers from 0 to 255; the whole
  image where `crop.short_side` is None. With `fast`, a JPEG is decoded at its
  own smaller scales, to `short_side` or more.
  """
  short_side = crop.short_side
  if fast and short_side is not None:
    image, shape, sides = _decode_to(encoded, short_side, channels)
  else:
    image = decode(encoded, channels)
    shape = tf.shape(image)[:2]
    sides = tf.cast(shape, tf.float32)
  if short_side is None:
    return tf.cast(image, tf.float32)
  # The longer side is rounded down, the crop's corner to the nearest pixel.
  resized = short_side * shape // tf.reduce_min(shape)
  corner = tf.cast(tf.round((resized - crop.size) / 2), tf.int32)
  return _resize(image, crop.size, sides, resized, corner, crop.method)


def _decode_to(
  encoded: "tf.Tensor", short_side: int, channels: int
) -> "tuple[tf.Tensor, tf.Tensor, tf.Tensor]":
  """Decodes a JPEG no larger than needed; also its shape, and that of this."""

  def from_jpeg() -> "tuple[tf.Tensor, ...]":
    shape = tf.io.extract_jpeg_shape(encoded)[:2]

    def at(ratio: int) -> "tuple[tf.Tensor, ...]":
      image = tf.io.decode_jpeg(
        encoded, channels=channels, ratio=ratio, dct_method=DCT
      )
      return image, shape, tf.cast(shape, tf.float32) / ratio

    return _at_scale(at, tf.reduce_min(shape), short_side, fast=True)

  def from_other() -> "tuple[tf.Tensor, ...]":
    image = decode_other(encoded, channels)
    shape = tf.shape(image)[:2]
    return image, shape, tf.cast(shape, tf.float32)

  image, shape, sides = tf.cond(
    is_jpeg(encoded, channels), from_jpeg, from_other
  )
  image.set_shape([None, None, channels])
  return image, shape, sides


def _at_scale(
  at: "Callable[[int], tuple[tf.Tensor, ...]]",
  side: "tf.Tensor",
  least: int,
  fast: bool,
) -> "tuple[tf.Tensor, ...]":
  """Decodes at the smallest of a JPEG's scales that leaves `least` pixels."""
  if not fast:
    return at(1)
  scales = [functools.partial(at, ratio) for ratio in (1, 2, 4, 8)]
  enough = tf.stack([side >= least * ratio for ratio in (2, 4, 8)])
  found: tuple[tf.Tensor, ...] = tf.switch_case(
    tf.reduce_sum(tf.cast(enough, tf.int32)), scales
  )
  return found


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
  sides: "tf.Tensor",
  resized: "tf.Tensor | list[int]",
  corner: "tf.Tensor",
  method: str,
) -> "tf.Tensor":
  """Resizes `sides` to `resized` and computes only the crop at `corner`.

  As Pillow does it, first the rows' direction, then the columns', with whole
  numbers between.
  """
  channels = image.shape[-1]
  scale = tf.cast(resized, tf.float32) / sides
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
