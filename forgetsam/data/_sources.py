"""What a job sees of a set: splits that give batches, wherever they lie."""

import dataclasses
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32, Int64

from forgetsam.data._eval_batches import eval_batches, pad
from forgetsam.data._normalization import PerChannel
from forgetsam.data._split import ImageData, Split
from forgetsam.data._train_batches import (
  check_shard,
  train_batches,
  train_indices,
)

Batches = Iterator[dict[str, np.ndarray]]


@runtime_checkable
class BatchSource(Protocol):
  """A split that gives training and evaluation batches."""

  @property
  def num_classes(self) -> int:
    """Number of classes K of its labels."""

  @property
  def multi_label(self) -> bool:
    """Whether labels are [b, K], 1 for each class that is right, else 0."""

  @property
  def classes(self) -> Int32[np.ndarray, " c"] | None:
    """The classes that occur, where they are known to be a part of all."""

  @property
  def eval_shape(self) -> tuple[int, int, int]:
    """Height, width and channels of an image in evaluation batches."""

  def __len__(self) -> int:
    """The number of examples, unlabelled ones included."""

  def train_batches(
    self,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    num_steps: int | None = None,
    shard: tuple[int, int] = (0, 1),
  ) -> Batches:
    """Shuffled and augmented batches, as `data.train_batches`."""

  def train_indices(
    self, *, batch_size: int, seed: int, step: int
  ) -> Int64[np.ndarray, " b"]:
    """Which examples a training batch holds, row by row, of all shards.

    Args:
      batch_size: as in `train_batches`.
      seed: as in `train_batches`.
      step: the batch's step, counted from the start of training.

    Returns:
      Positions in TFDS's split, in the order of its files, counted from 0.
    """

  def eval_batches(
    self, *, batch_size: int, shard: tuple[int, int] = (0, 1)
  ) -> Batches:
    """Every example once, padded and masked, as `data.eval_batches`.

    With `shard` (index, count), the index-th of `count` parts of the split, in
    batches of `batch_size // count` rows, as many for every index.
    """


@dataclasses.dataclass(frozen=True, eq=False)
class Sources:
  """The splits of a set.

  Attributes:
    name: the TFDS name.
    num_classes: number of classes K.
    image_shape: height, width, channels of training images.
    train: what to train on; None for sets that only test.
    validation: examples held out of training, or None.
    test: what to test on.
    left_out: number of corrupt examples of all splits that were left out.
  """

  name: str
  num_classes: int
  image_shape: tuple[int, int, int]
  train: BatchSource | None
  validation: BatchSource | None
  test: BatchSource
  left_out: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class MemorySource:
  """A decoded split and what is done to its images: a `BatchSource`.

  Attributes:
    split: the examples.
    num_classes: number of classes K.
    mean: as in `data.train_batches`.
    std: as in `data.train_batches`.
    flip: as in `data.train_batches`.
    crop_padding: as in `data.train_batches`.
  """

  split: Split
  num_classes: int
  mean: PerChannel
  std: PerChannel
  flip: bool = False
  crop_padding: int = 0

  @property
  def multi_label(self) -> bool:
    """False: each example has one label."""
    return False

  @property
  def classes(self) -> None:
    """None: all classes occur."""
    return None

  @property
  def eval_shape(self) -> tuple[int, int, int]:
    """Height, width and channels, as stored."""
    height, width, channels = self.split.images.shape[1:]
    return height, width, channels

  def __len__(self) -> int:
    """The number of examples."""
    return len(self.split)

  def train_batches(
    self,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    num_steps: int | None = None,
    shard: tuple[int, int] = (0, 1),
  ) -> Batches:
    """See `BatchSource`."""
    return train_batches(
      self.split,
      batch_size=batch_size,
      seed=seed,
      start_step=start_step,
      num_steps=num_steps,
      mean=self.mean,
      std=self.std,
      flip=self.flip,
      crop_padding=self.crop_padding,
      shard=shard,
    )

  def train_indices(
    self, *, batch_size: int, seed: int, step: int
  ) -> Int64[np.ndarray, " b"]:
    """See `BatchSource`."""
    return train_indices(
      self.split, batch_size=batch_size, seed=seed, step=step
    )

  def eval_batches(
    self, *, batch_size: int, shard: tuple[int, int] = (0, 1)
  ) -> Batches:
    """See `BatchSource`."""
    share, start, stop, steps = eval_share(len(self), batch_size, shard)
    split = self.split
    mine = Split(
      split.images[start:stop], split.labels[start:stop], split.ids[start:stop]
    )
    batches = eval_batches(mine, batch_size=share, mean=self.mean, std=self.std)
    # Of unequal shards, the smaller ones may have a batch less.
    image = np.zeros((0, *split.images.shape[1:]), np.float32)
    no_rows = {
      "image": image,
      "label": np.zeros(0, np.int32),
      "mask": np.zeros(0, np.float32),
    }
    empty = pad_batch(no_rows, share)
    return (next(batches, empty) for _ in range(steps))


def in_memory(
  images: ImageData,
  *,
  mean: PerChannel,
  std: PerChannel,
  flip: bool = False,
  crop_padding: int = 0,
) -> Sources:
  """The splits of a loaded set as sources of batches.

  Args:
    images: what `data.load` gives.
    mean: as in `data.train_batches`; of all splits.
    std: as in `data.train_batches`; of all splits.
    flip: as in `data.train_batches`.
    crop_padding: as in `data.train_batches`.
  """

  def source(split: Split) -> MemorySource:
    return MemorySource(
      split, images.num_classes, mean, std, flip, crop_padding
    )

  held_out = images.validation
  return Sources(
    images.name,
    images.num_classes,
    images.image_shape,
    source(images.train),
    None if held_out is None else source(held_out),
    source(images.test),
  )


def eval_share(
  count: int, batch_size: int, shard: tuple[int, int]
) -> tuple[int, int, int, int]:
  """A shard's rows per batch, first and last position, and number of batches.

  Raises:
    ValueError: the shards do not divide the batch.
  """
  if batch_size < 1:
    raise ValueError(f"batch_size={batch_size} must be at least 1")
  check_shard(shard, batch_size)
  index, shards = shard
  share = batch_size // shards
  largest = -(-count // shards)
  start, stop = index * count // shards, (index + 1) * count // shards
  return share, start, stop, -(-largest // share)


def pad_batch(batch: dict[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
  """The batch with zeros below its rows, up to `rows`."""
  return {name: pad(array, rows - len(array)) for name, array in batch.items()}
