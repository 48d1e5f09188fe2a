"""From a serialised example to its image's pixels and its label."""

import functools
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import UInt8

from forgetsam.data._tensorflow import tf

# Takes a serialised example apart: encoded image and label.
Parse = Callable[[Any], tuple[Any, Any]]

# Pillow's choice, and that of every published evaluation. It costs nothing
# that could be measured.
DCT = "INTEGER_ACCURATE"


def parser(
  features: Any, label: str, *, multi_label_classes: int | None = None
) -> Parse:
  """Makes a function from a serialised example to encoded image and label.

  With `multi_label_classes` = K, the feature `label` holds any number of
  labels, which become float32 [K], 1 for each that is right.
  """
  spec = {name: features.tf_example_spec[name] for name in ("image", label)}

  def parse(serialised: "tf.Tensor") -> "tuple[tf.Tensor, tf.Tensor]":
    example = tf.io.parse_single_example(serialised, spec)
    labels = example[label]
    if multi_label_classes is None:
      return example["image"], tf.cast(labels, tf.int32)
    rows = tf.one_hot(labels, multi_label_classes, True, False, dtype=tf.bool)
    return example["image"], tf.cast(tf.reduce_any(rows, 0), tf.float32)

  return parse


def label_parser(features: Any, label: str) -> Callable[[Any], Any]:
  """Makes a function from serialised examples to their labels, image unread.

  Where an example has any number of labels, zeros follow the fewer ones.
  """
  spec = {label: features.tf_example_spec[label]}
  if isinstance(spec[label], tf.io.FixedLenSequenceFeature):
    spec[label] = tf.io.FixedLenSequenceFeature(
      (), tf.int64, allow_missing=True, default_value=0
    )
  return lambda serialised: tf.io.parse_example(serialised, spec)[label]


def check_image(parse: Parse, *, channels: int) -> Callable[[Any], Any]:
  """Makes a function that decodes a serialised example to its last pixel."""

  def check(serialised: "tf.Tensor") -> "tf.Tensor":
    encoded, _ = parse(serialised)
    return tf.cast(tf.reduce_max(decode(encoded, channels)), tf.int64)

  return check


def decode(encoded: "tf.Tensor", channels: int) -> "tf.Tensor":
  """Decodes an image file: uint8 [height, width, channels]."""
  image = tf.cond(
    is_jpeg(encoded, channels),
    lambda: tf.io.decode_jpeg(encoded, channels=channels, dct_method=DCT),
    lambda: decode_other(encoded, channels),
  )
  image.set_shape([None, None, channels])
  return image


def is_jpeg(encoded: "tf.Tensor", channels: int) -> "tf.Tensor":
  """Whether TensorFlow's JPEG decoder gives an image of so many channels."""
  if channels > 1:
    return tf.io.is_jpeg(encoded)
  # It does not make grey of CMYK.
  return tf.cond(
    tf.io.is_jpeg(encoded),
    lambda: tf.io.extract_jpeg_shape(encoded)[2] < 4,
    lambda: tf.constant(False),
  )


def decode_other(encoded: "tf.Tensor", channels: int) -> "tf.Tensor":
  """Decodes an image file of any format that TensorFlow or Pillow reads.

  TensorFlow takes a BMP's palette for grey levels, and refuses grey ones where
  three channels are asked for.
  """
  known = tf.strings.substr(encoded, 0, 4) == b"\x89PNG"
  known |= is_jpeg(encoded, channels)
  if channels > 1:
    known |= tf.strings.substr(encoded, 0, 3) == b"GIF"
  image = tf.cond(
    known,
    lambda: tf.io.decode_image(encoded, channels, expand_animations=False),
    lambda: tf.numpy_function(
      functools.partial(_pillow, channels), [encoded], tf.uint8, stateful=False
    ),
  )
  image.set_shape([None, None, channels])
  return image


def _pillow(channels: int, encoded: Any) -> UInt8[np.ndarray, "h w c"]:
  from PIL import Image, UnidentifiedImageError

  if not isinstance(encoded, bytes):  # outside of a graph
    encoded = encoded.item()
  if not encoded:
    raise ValueError("it is empty")
  try:
    image = Image.open(io.BytesIO(encoded))
  except UnidentifiedImageError:
    raise ValueError("it is no image file of a known format") from None
  if image.mode.startswith(("I", "F")):
    raise ValueError(
      f"its {image.format} image has pixels of mode {image.mode!r}, not of 8"
      " bits a channel; PNG may have 16"
    )
  pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
  return pixels.reshape(*pixels.shape[:2], channels)
