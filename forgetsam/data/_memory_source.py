"""Sets in memory as sources of batches."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Int64

from forgetsam.data._batches import Batches, PerChannel, Sources
from forgetsam.data._identity import SetIdentity
from forgetsam.data._memory_batches import (
  eval_batches,
  train_batches,
  train_positions,
)
from forgetsam.data._split import ImageData, Split


@dataclasses.dataclass(frozen=True, eq=False)
class MemorySource:
  """A split in memory and what is done to its images: a `BatchSource`.

  Attributes:
    split: the examples.
    num_classes: number of classes K.
    mean: as in `data.train_batches`.
    std: as in `data.train_batches`.
    flip: as in `data.train_batches`.
    crop_padding: as in `data.train_batches`.
    identity: what the set was, where it was read from files.
  """

  split: Split
  num_classes: int
  mean: PerChannel = 0.0
  std: PerChannel = 1.0
  flip: bool = False
  crop_padding: int = 0
  identity: SetIdentity | None = None

  @property
  def multi_label(self) -> bool:
    """False: each example has one label."""
    return False

  @property
  def classes(self) -> None:
    """None: all classes occur."""
    return None

  @property
  def eval_shape(self) -> tuple[int, ...]:
    """The shape of an image or another input, as stored."""
    return self.split.images.shape[1:]

  @property
  def eval_dtype(self) -> np.dtype[Any]:
    """Float32 of images, whose values are normalised; else as stored."""
    split = self.split
    return np.dtype(np.float32) if split.has_pixels else split.images.dtype

  def __len__(self) -> int:
    return len(self.split)

  def train_batches(self, **plan: Any) -> Batches:
    """See `BatchSource`."""
    return train_batches(
      self.split,
      **plan,
      mean=self.mean,
      std=self.std,
      flip=self.flip,
      crop_padding=self.crop_padding,
    )

  def train_indices(
    self, *, batch_size: int, seed: int, step: int
  ) -> Int64[np.ndarray, " b"]:
    """See `BatchSource`."""
    [positions] = train_positions(
      len(self), batch_size=batch_size, seed=seed, start_step=step, num_steps=1
    )
    return self.split.ids[positions]

  def eval_batches(
    self,
    *,
    batch_size: int,
    shard: tuple[int, int] = (0, 1),
    groups: bool = False,
  ) -> Batches:
    """See `BatchSource`."""
    return eval_batches(
      self.split,
      batch_size=batch_size,
      mean=self.mean,
      std=self.std,
      shard=shard,
      groups=groups,
    )


def in_memory(
  images: ImageData,
  *,
  mean: PerChannel = 0.0,
  std: PerChannel = 1.0,
  flip: bool = False,
  crop_padding: int = 0,
) -> Sources:
  """The splits of a loaded set as sources of batches.

  Args:
    images: a set, as `data.load` or `data.from_arrays` gives it; what follows
      is for images alone.
    mean: as in `data.train_batches`; of all splits.
    std: as in `data.train_batches`; of all splits.
    flip: as in `data.train_batches`.
    crop_padding: as in `data.train_batches`.
  """

  def source(split: Split) -> MemorySource:
    return MemorySource(
      split, images.num_classes, mean, std, flip, crop_padding
    )

  held_out, train = images.validation, images.train
  pixels = train.has_pixels
  return Sources(
    images.name,
    images.num_classes,
    images.image_shape,
    source(train),
    None if held_out is None else source(held_out),
    source(images.test),
    identity=images.identity,
    image_dtype=np.dtype(np.float32) if pixels else train.images.dtype,
    label_shape=train.labels.shape[1:],
    label_dtype=train.labels.dtype,
  )
