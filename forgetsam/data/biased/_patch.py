"""Where the patch lies, and putting it there."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int, Int32, UInt8

from forgetsam.data import _subsets

# Pixels along a side, for each set.
PATCH_SIZE: Mapping[str, int] = {"biased_digits": 1, "biased_fashion": 2}

_WHITE = 255


def corners(
  image_shape: tuple[int, int, int], size: int, num_places: int
) -> Int[np.ndarray, "places 2"]:
  """The upper left pixel (row, column) of the patch at each place.

  The first half of the places lies along the left edge, from the top to the
  bottom, the second half along the right edge.

  Args:
    image_shape: height, width, channels.
    size: pixels along a side of the patch.
    num_places: an even number of places.

  Raises:
    ValueError: the places do not fit beside each other.

  Example:
    >>> corners((8, 8, 1), size=1, num_places=4).tolist()
    [[0, 0], [7, 0], [0, 7], [7, 7]]
  """
  height, width, _ = image_shape
  rows = num_places // 2
  if num_places < 4 or num_places % 2:
    raise ValueError(f"num_places={num_places} must be even and at least 4")
  if size < 1 or rows * size > height or 2 * size > width:
    raise ValueError(
      f"size={size} must be at least 1 and let {rows} patches fit along each"
      f" side of images of {height}x{width} pixels"
    )
  down = np.arange(rows) * (height - size) // (rows - 1)
  right = np.repeat([0, width - size], rows)
  return np.stack([np.tile(down, 2), right], axis=1)


def paste(
  images: UInt8[np.ndarray, "n height width channels"],
  places: Int[np.ndarray, " n"],
  *,
  size: int,
  num_places: int,
) -> UInt8[np.ndarray, "n height width channels"]:
  """Copies of the images, each with a white patch at its place.

  Args:
    images: without a patch.
    places: 0 to num_places - 1.
    size: pixels along a side of the patch.
    num_places: as in `corners`.

  Example:
    >>> paste(np.zeros((1, 4, 4, 1), np.uint8), np.array([3]), size=1,
    ...       num_places=4)[0, ..., 0].tolist()
    [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 255]]
  """
  height, width, channels = images.shape[1:]
  top, left = corners((height, width, channels), size, num_places)[places].T
  side = np.arange(size)
  pasted = images.copy()
  example = np.arange(len(images))[:, None, None]
  row = (top[:, None] + side)[:, :, None]
  column = (left[:, None] + side)[:, None, :]
  pasted[example, row, column] = _WHITE
  return pasted


def draw_places(
  labels: Int[np.ndarray, " n"], *, agree: float, num_places: int, seed: int
) -> Int32[np.ndarray, " n"]:
  """Places that are the label's for a fraction of the examples.

  `round(agree * n)` examples have their label's place, and each of the others
  has any other place with the same probability. 1 always agrees, 0 always
  conflicts, and 1/K is a place that says nothing about the label. With the same
  seed, a larger fraction contains a smaller one.

  Args:
    labels: class of each example.
    agree: fraction of the examples that agree, 0 to 1: q.
    num_places: the number of places and of classes, K.
    seed: of the draws.

  Example:
    >>> draw_places(np.array([3, 1, 2]), agree=1.0, num_places=4, seed=0)
    array([3, 1, 2], dtype=int32)

  Raises:
    ValueError: agree is no fraction.
  """
  if not 0 <= agree <= 1:
    raise ValueError(f"agree={agree} must be in [0, 1]")
  example_keys, place_keys = (
    _subsets.draws(len(labels), seed=seed, purpose=purpose)
    for purpose in (
      _subsets.Purpose.PLACED_ELSEWHERE,
      _subsets.Purpose.PLACES,
    )
  )
  return _subsets.flip_labels(
    labels.astype(np.int32), 1 - agree, num_places, example_keys, place_keys
  )
