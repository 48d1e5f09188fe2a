"""Sources of batches: the contract of splits, in memory or on disk."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int32, Int64

from forgetsam.data._identity import SetIdentity

Batch = dict[str, np.ndarray]
Batches = Iterator[Batch]
PerChannel = float | Sequence[float]

_FLOAT32, _INT32 = np.dtype(np.float32), np.dtype(np.int32)


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
  def eval_shape(self) -> tuple[int, ...]:
    """The shape of an image, or another input, in evaluation batches."""

  @property
  def eval_dtype(self) -> np.dtype[Any]:
    """The type of such an input: float32 of images."""

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
    """Shuffled and augmented batches.

    Args:
      batch_size: examples per step, over all processes.
      seed: seed of the orders and the augmentation; the run's.
      start_step: first step to yield, counted from the start of training.
      num_steps: steps to yield; None never ends.
      shard: (index, count): yields only the index-th of `count` consecutive
        parts of each batch, and reads no other examples.

    Returns:
      An iterator over {"image": float32 [b, h, w, c], "label": int32 [b]}, or
      float32 [b, K] in multi-label sets, with b the shard's share of the batch.
      Of sets that hold no images, inputs and labels are as stored; with weights
      there is a "mask", as `Split.weights`.
    """

  def train_indices(
    self, *, batch_size: int, seed: int, step: int
  ) -> Int64[np.ndarray, " b"]:
    """Positions of a training batch's examples, row by row, of all shards.

    Args:
      batch_size: as in `train_batches`.
      seed: as in `train_batches`.
      step: the batch's step, counted from the start of training.

    Returns:
      Positions in TFDS's split, in the order of its files, counted from 0.
    """

  def eval_batches(
    self,
    *,
    batch_size: int,
    shard: tuple[int, int] = (0, 1),
    groups: bool = False,
  ) -> Batches:
    """Every example once, padded and masked, as `data.eval_batches`.

    With `shard` (index, count), the index-th of `count` parts of the split, in
    batches of `batch_size // count` rows, as many for every index. With
    `groups`, "group/NAME": bool [b] marks the examples of each group that the
    set names.
    """


@dataclasses.dataclass(frozen=True, eq=False)
class Sources:
  """The splits of a set.

  Attributes:
    name: the set's name.
    num_classes: number of classes K, as in `ImageData`.
    image_shape: height, width, channels of training images, or the shape of
      another input.
    train: what to train on; None for sets that only test.
    validation: examples held out of training, or None.
    test: what to test on.
    left_out: number of corrupt examples of all splits that were left out.
    identity: what the set was, where it was read from files.
    image_dtype: of inputs in batches: float32, or int32 of tokens.
    label_shape: of an example's label; `()` for one class.
    label_dtype: int32 for classes, float32 for targets.
  """

  name: str
  num_classes: int
  image_shape: tuple[int, ...]
  train: BatchSource | None
  validation: BatchSource | None
  test: BatchSource
  left_out: int = 0
  identity: SetIdentity | None = None
  image_dtype: np.dtype[Any] = _FLOAT32
  label_shape: tuple[int, ...] = ()
  label_dtype: np.dtype[Any] = _INT32


def first_batches(
  source: BatchSource, count: int, *, batch_size: int
) -> Batches:
  """Evaluation batches of a split's first examples.

  Args:
    source: the split.
    count: number of examples; all, where it has fewer.
    batch_size: rows of every batch.

  Returns:
    An iterator over batches as `eval_batches` gives them; "mask" is 0 for
    padding and for what comes after the first `count`.
  """
  batches = source.eval_batches(batch_size=batch_size)
  left = min(count, len(source))
  for batch in itertools.islice(batches, -(-left // batch_size)):
    used = np.arange(batch_size) < left
    mask = batch["mask"]
    used = used.reshape(-1, *[1] * (mask.ndim - 1))
    yield {**batch, "mask": mask * used}
    left -= batch_size


def first_examples(
  source: BatchSource, count: int, *, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
  """Images and labels of a split's first examples, without augmentation.

  Args:
    source: the split.
    count: number of examples; all, where it has fewer.
    batch_size: rows to read at a time.

  Returns:
    Float32 images `[n, h, w, c]`, normalised, or other inputs as stored, and
    their labels; examples of weight 0 are left out.
  """
  batches = list(first_batches(source, count, batch_size=batch_size))
  mask = np.concatenate([batch["mask"] for batch in batches])
  keep = np.any(mask.reshape(len(mask), -1) > 0, axis=1)
  images, labels = (
    np.concatenate([batch[name] for batch in batches])[keep]
    for name in ("image", "label")
  )
  return images, labels


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
  """Steps until each example was seen: ceil(num_examples / batch_size).

  Example:
    >>> steps_per_epoch(1437, 128)
    12
  """
  return -(-num_examples // batch_size)


def channel_statistics(
  mean: PerChannel, std: PerChannel, channels: int
) -> tuple[Float32[np.ndarray, " m"], Float32[np.ndarray, " s"]]:
  """Checks mean and standard deviation: one number each, or one a channel."""
  arrays = []
  for name, value in (("mean", mean), ("std", std)):
    array = np.atleast_1d(np.asarray(value, np.float32))
    if array.ndim > 1 or len(array) not in (1, channels):
      raise ValueError(
        f"{name}={value} must be one number, or one for each of the"
        f" {channels} channels"
      )
    if not np.all(np.isfinite(array)):
      raise ValueError(f"{name}={value} must be finite")
    arrays.append(array)
  if np.any(arrays[1] <= 0):
    raise ValueError(f"std={std} must be positive")
  return arrays[0], arrays[1]


def check_plan(
  count: int,
  batch_size: int,
  seed: int,
  start_step: int,
  num_steps: int | None,
  shard: tuple[int, int],
) -> None:
  """Refuses batches that `count` training examples cannot give."""
  if not 0 < batch_size <= count:
    raise ValueError(
      f"batch_size={batch_size} must be between 1 and the number of training"
      f" examples, {count}"
    )
  if not 0 <= seed < 2**63:
    raise ValueError(f"seed={seed} must be between 0 and 2**63 - 1")
  if start_step < 0 or (num_steps is not None and num_steps < 0):
    raise ValueError(
      f"start_step={start_step} and num_steps={num_steps} must not be negative"
    )
  _check_shard(shard, batch_size)


def eval_share(
  count: int, batch_size: int, shard: tuple[int, int]
) -> tuple[int, int, int, int]:
  """A shard's rows per batch, first and last example, and number of batches."""
  if batch_size < 1:
    raise ValueError(f"batch_size={batch_size} must be at least 1")
  _check_shard(shard, batch_size)
  index, shards = shard
  share = batch_size // shards
  largest = -(-count // shards)
  start, stop = index * count // shards, (index + 1) * count // shards
  return share, start, stop, -(-largest // share)


def _check_shard(shard: tuple[int, int], batch_size: int) -> None:
  index, count = shard
  if not 0 <= index < count or batch_size % count:
    raise ValueError(
      f"shard={shard} must be (index, count) with 0 <= index < count, and"
      f" count must divide batch_size={batch_size}"
    )


def pad_batch(batch: Batch, rows: int) -> Batch:
  """The batch with zeros below its rows, up to `rows`."""
  return {
    name: np.pad(array, [(0, rows - len(array))] + [(0, 0)] * (array.ndim - 1))
    for name, array in batch.items()
  }
