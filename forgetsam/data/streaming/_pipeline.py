"""The stages between serialised examples and batches."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from forgetsam.data._normalization import PerChannel, channel_statistics
from forgetsam.data._tensorflow import import_tensorflow

if TYPE_CHECKING:
  import tensorflow as tf

Parse = Callable[[Any], tuple[Any, Any]]

_BATCHES_AHEAD = 2


def parser(
  features: Any, label: str, *, num_classes: int, multi_label: bool
) -> Parse:
  """A function that takes a serialised example apart: encoded image and label.

  Args:
    features: the TFDS set's features.
    label: name of the feature with the label or labels.
    num_classes: number of classes K.
    multi_label: whether labels become float32 [K], 1 for each that is right.
  """
  tf = import_tensorflow()
  spec = {name: features.tf_example_spec[name] for name in ("image", label)}

  def parse(serialised: "tf.Tensor") -> "tuple[tf.Tensor, tf.Tensor]":
    example = tf.io.parse_single_example(serialised, spec)
    labels = example[label]
    if not multi_label:
      return example["image"], tf.cast(labels, tf.int32)
    rows = tf.one_hot(labels, num_classes, True, False, dtype=tf.bool)
    return example["image"], tf.cast(tf.reduce_any(rows, 0), tf.float32)

  return parse


def normaliser(
  mean: PerChannel, std: PerChannel, channels: int
) -> "Callable[[tf.Tensor], tf.Tensor]":
  """(pixels / 255 - mean) / std, of float32 [height, width, channels]."""
  tf = import_tensorflow()
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


def run(
  examples: "tf.data.Dataset",
  example: Callable[..., dict[str, Any]],
  *,
  rows: int,
  threads: int,
) -> Any:
  """Maps examples and batches them, on threads of its own, in a fixed order."""
  tf = import_tensorflow()
  options = tf.data.Options()
  options.deterministic = True
  options.autotune.enabled = False
  options.threading.private_threadpool_size = threads
  options.threading.max_intra_op_parallelism = 1
  # A finished image is written straight to its place in the batch.
  options.experimental_optimization.map_and_batch_fusion = True
  batches = examples.map(
    tf.autograph.experimental.do_not_convert(example),
    num_parallel_calls=threads,
  ).batch(rows)
  batches = batches.prefetch(_BATCHES_AHEAD).with_options(options)
  return iter(batches.as_numpy_iterator())
