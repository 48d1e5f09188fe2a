"""Random crops and mirror images, drawn per epoch and example.

An example's draws depend on (seed, epoch, example) alone: not on its batch, its
row, or the process that reads it.
"""

from typing import NamedTuple

from forgetsam.data._tensorflow import permutation, tf

# Streams of random numbers within an epoch.
_ORDER, _CROP, _FLIP = 0, 1, 2


class Draws(NamedTuple):
  """Each example's random numbers: a crop's corner, and whether to flip."""

  corner: "tf.Tensor"  # int32 [n, 2]: row and column, 0 to twice the padding
  flip: "tf.Tensor"  # bool [n]


def shuffled(count: int, *, seed: int, epoch: "tf.Tensor") -> "tf.Tensor":
  """A permutation of `range(count)` drawn from (seed, epoch)."""
  return permutation(count, _key(seed, epoch, _ORDER))


def draw(
  ids: "tf.Tensor", *, seed: int, epoch: "tf.Tensor", crop_padding: int
) -> Draws:
  """Draws for the examples with these ids.

  Ids are positions in one counter's stream, drawn up to the largest: a thousand
  times cheaper than a seed for every example.
  """
  count = tf.reduce_max(ids) + 1
  corners = tf.random.stateless_uniform(
    [count, 2],
    _key(seed, epoch, _CROP),
    0,
    2 * crop_padding + 1,
    tf.int32,
    alg="philox",
  )
  flips = tf.random.stateless_uniform(
    [count], _key(seed, epoch, _FLIP), 0, 2, tf.int32, alg="philox"
  )
  return Draws(tf.gather(corners, ids), tf.gather(flips, ids) == 1)


def crop(
  images: "tf.Tensor", corner: "tf.Tensor", crop_padding: int
) -> "tf.Tensor":
  """Crops of the original size, out of images with a border of zeros.

  `corner` is the row and column of a crop's first pixel in the padded image.
  """
  _, height, width, _ = images.shape
  border = [crop_padding, crop_padding]
  padded = tf.pad(images, [[0, 0], border, border, [0, 0]])
  rows = corner[:, :1] + tf.range(height)
  columns = corner[:, 1:] + tf.range(width)
  cropped = tf.gather(padded, rows, axis=1, batch_dims=1)
  return tf.gather(cropped, columns, axis=2, batch_dims=1)


def mirror(images: "tf.Tensor", flip: "tf.Tensor") -> "tf.Tensor":
  """Mirrors left and right the images where `flip` is true."""
  return tf.where(flip[:, None, None, None], images[:, :, ::-1], images)


def _key(seed: int, epoch: "tf.Tensor", stream: int) -> "tf.Tensor":
  return tf.random.fold_in(
    tf.stack([tf.constant(seed, tf.int64), epoch]),
    tf.constant(stream, tf.int64),
    alg="philox",
  )
