"""From a serialised example to its image's pixels and its label."""

from collections.abc import Callable
from typing import Any

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


def check_image(parse: Parse, *, channels: int) -> Callable[[Any], Any]:
  """Makes a function that decodes a serialised example to its last pixel."""

  def check(serialised: "tf.Tensor") -> "tf.Tensor":
    encoded, _ = parse(serialised)
    return tf.cast(tf.reduce_max(decode(encoded, channels)), tf.int64)

  return check


def decode(encoded: "tf.Tensor", channels: int) -> "tf.Tensor":
  """Decodes an image file: uint8 [height, width, channels]."""
  image = tf.cond(
    tf.io.is_jpeg(encoded),
    lambda: tf.io.decode_jpeg(encoded, channels=channels, dct_method=DCT),
    lambda: decode_other(encoded, channels),
  )
  image.set_shape([None, None, channels])
  return image


def decode_other(encoded: "tf.Tensor", channels: int) -> "tf.Tensor":
  """Decodes an image file that is no JPEG."""
  image = tf.io.decode_image(encoded, channels, expand_animations=False)
  image.set_shape([None, None, channels])
  return image
