"""Decoded examples: a split, a set, and labels made wrong on purpose."""

import dataclasses

import numpy as np
from jaxtyping import Int32, Int64, UInt8

from forgetsam.data import _subsets
from forgetsam.data._identity import SetIdentity


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """Decoded examples of one split.

  Attributes:
    images: grey levels or colours, 0 to 255.
    labels: class numbers, from 0.
    ids: each example's position in the original TFDS split, ascending.
  """

  images: UInt8[np.ndarray, "n height width channels"]
  labels: Int32[np.ndarray, " n"]
  ids: Int64[np.ndarray, " n"]

  def __len__(self) -> int:
    return len(self.labels)

  def take(self, positions: Int64[np.ndarray, " m"]) -> "Split":
    """The examples at `positions`, in that order, with their ids."""
    return Split(
      self.images[positions], self.labels[positions], self.ids[positions]
    )


@dataclasses.dataclass(frozen=True, eq=False)
class ImageData:
  """An image classification set in memory.

  Attributes:
    name: the TFDS name that it was loaded by.
    num_classes: number of classes K; labels are 0 to K - 1.
    image_shape: height, width, channels.
    train: training examples, without those held out.
    validation: examples held out of TFDS's `train`, or None.
    test: TFDS's `test`, in its order.
    identity: what the set was, where it was read from files.
  """

  name: str
  num_classes: int
  image_shape: tuple[int, int, int]
  train: Split
  validation: Split | None
  test: Split
  identity: SetIdentity | None = None


def mislabel(
  split: Split, fraction: float, *, num_classes: int, seed: int
) -> Split:
  """Gives a fraction of a split's examples another class.

  An example's draw depends on (seed, its id) alone. `load` does this to the
  training examples; do it to held-out ones, with the same fraction, where they
  are to be a control for what training examples do.

  Args:
    split: the examples.
    fraction: how many of them to change, 0 to 1; each other class is as likely.
    num_classes: number of classes K, at least 2.
    seed: seed of the draws; the `split_seed` of `load`.

  Returns:
    The same images and ids, with other labels.

  Raises:
    ValueError: an argument is out of its range.
  """
  if num_classes < 2:
    raise ValueError(
      f"label_noise={fraction} needs another class to change a label to; the"
      f" set has {num_classes}"
    )
  if not 0 <= fraction <= 1:
    raise ValueError(f"label_noise={fraction} must be in [0, 1]")
  purposes = (_subsets.Purpose.NOISY_EXAMPLES, _subsets.Purpose.NOISY_LABELS)
  count = int(split.ids.max()) + 1 if len(split) else 0
  example_keys, label_keys = (
    _subsets.draws(count, seed=seed, purpose=purpose)[split.ids]
    for purpose in purposes
  )
  labels = _subsets.flip_labels(
    split.labels, fraction, num_classes, example_keys, label_keys
  )
  return Split(split.images, labels, split.ids)
