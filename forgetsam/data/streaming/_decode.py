"""From encoded bytes to the pixels of a crop."""

from typing import TYPE_CHECKING

from forgetsam.data._tensorflow import import_tensorflow
from forgetsam.data.streaming import _crops

if TYPE_CHECKING:
  import tensorflow as tf

# Pillow's choice, and that of every published evaluation. It costs nothing
# that could be measured.
_DCT = "INTEGER_ACCURATE"


def training_image(
  encoded: "tf.Tensor",
  crop: _crops.RandomResizedCrop,
  draws: "tf.Tensor",
  *,
  channels: int,
) -> "tf.Tensor":
  """A random crop of an encoded image; of a JPEG, no more is decoded.

  Args:
    encoded: the file's bytes.
    crop: what to cut out.
    draws: what the crop is drawn from, as in `_crops.random_box`.
    channels: 1 or 3.

  Returns:
    float32 [size, size, channels], whole numbers from 0 to 255.
  """
  tf = import_tensorflow()

  def from_jpeg() -> "tuple[tf.Tensor, tf.Tensor]":
    shape = tf.io.extract_jpeg_shape(encoded)
    box, flip = _crops.random_box(crop, shape[0], shape[1], draws)
    image = tf.io.decode_and_crop_jpeg(
      encoded, tf.stack(box), channels=channels, dct_method=_DCT
    )
    return image, flip

  def from_other() -> "tuple[tf.Tensor, tf.Tensor]":
    image = _decode_other(encoded, channels)
    shape = tf.shape(image)
    box, flip = _crops.random_box(crop, shape[0], shape[1], draws)
    return tf.image.crop_to_bounding_box(image, *box), flip

  image, flip = tf.cond(tf.io.is_jpeg(encoded), from_jpeg, from_other)
  image.set_shape([None, None, channels])
  shape, size = tf.shape(image), crop.size
  pixels = _resize(image, size, shape[:2], [size, size], [0, 0], "bilinear")
  if not crop.flip:
    return pixels
  # Not by a slice with stride -1, which is thirty times slower.
  return tf.cond(flip, lambda: tf.reverse(pixels, [1]), lambda: pixels)


def evaluation_image(
  encoded: "tf.Tensor",
  crop: _crops.CenterCrop,
  *,
  channels: int,
) -> "tf.Tensor":
  """The middle of an encoded image, after the resize that `crop` describes.

  Args:
    encoded: the file's bytes.
    crop: what to cut out.
    channels: 1 or 3.

  Returns:
    float32 [size, size, channels], whole numbers from 0 to 255; the whole image
    where `crop.short_side` is None.
  """
  tf = import_tensorflow()
  image = _decode(encoded, channels)
  if crop.short_side is None:
    return tf.cast(image, tf.float32)
  shape = tf.shape(image)[:2]
  # The longer side is rounded down, the crop's corner to the nearest pixel.
  resized = crop.short_side * shape // tf.reduce_min(shape)
  corner = tf.cast(tf.round((resized - crop.size) / 2), tf.int32)
  return _resize(image, crop.size, shape, resized, corner, crop.method)


def check_image(encoded: "tf.Tensor", *, channels: int) -> "tf.Tensor":
  """Decodes an image to its last pixel; its largest value."""
  tf = import_tensorflow()
  return tf.cast(tf.reduce_max(_decode(encoded, channels)), tf.int64)


def _decode(encoded: "tf.Tensor", channels: int) -> "tf.Tensor":
  tf = import_tensorflow()
  image = tf.cond(
    tf.io.is_jpeg(encoded),
    lambda: tf.io.decode_jpeg(encoded, channels=channels, dct_method=_DCT),
    lambda: _decode_other(encoded, channels),
  )
  image.set_shape([None, None, channels])
  return image


def _decode_other(encoded: "tf.Tensor", channels: int) -> "tf.Tensor":
  tf = import_tensorflow()
  image = tf.io.decode_image(encoded, channels, expand_animations=False)
  image.set_shape([None, None, channels])
  return image


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
  tf = import_tensorflow()
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
