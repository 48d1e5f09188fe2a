"""What a loaded set is: splits of decoded images, labels and ids."""

import dataclasses

import numpy as np
from jaxtyping import Int32, Int64, UInt8


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
    """The number of examples."""
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
  """

  name: str
  num_classes: int
  image_shape: tuple[int, int, int]
  train: Split
  validation: Split | None
  test: Split
