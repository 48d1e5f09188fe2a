"""Training batches, a function of (split, seed, step) alone."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int64

from forgetsam.data import _augmentation
from forgetsam.data._normalization import PerChannel, channel_statistics
from forgetsam.data._split import Split
from forgetsam.data._tensorflow import import_tensorflow

if TYPE_CHECKING:
  import tensorflow as tf

Batch = dict[str, np.ndarray]

# Enough for over 100,000 small images a second, and room for the step.
_THREADS = 2
_BATCHES_AHEAD = 4


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
  """Steps until each example was seen: ceil(num_examples / batch_size).

  Example:
    >>> steps_per_epoch(1437, 128)
    12
  """
  return -(-num_examples // batch_size)


def train_batches(
  split: Split,
  *,
  batch_size: int,
  seed: int,
  start_step: int = 0,
  num_steps: int | None = None,
  mean: PerChannel,
  std: PerChannel,
  flip: bool = False,
  crop_padding: int = 0,
  shard: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
  """Shuffled, augmented, normalised batches, from `start_step` on.

  Each epoch is a fresh permutation drawn from (seed, epoch); its last batch
  wraps into its own start. Crops and flips are drawn from (seed, epoch,
  example id). A run that resumes at step n gets the batches that it would have
  got, bit for bit.

  Args:
    split: the examples.
    batch_size: examples per step, over all processes.
    seed: seed of the orders, crops and flips; the run's.
    start_step: first step to yield, counted from the start of training.
    num_steps: steps to yield; None never ends.
    mean: subtracted from the images scaled to [0, 1]; a number, or one per
      channel.
    std: divides them after that; a number, or one per channel.
    flip: mirror half of the images left to right.
    crop_padding: pixels of black border from which a crop of the original size
      is cut; 0 crops nothing.
    shard: (index, count): yields only the index-th of `count` consecutive
      parts of each batch, and reads no others.

  Returns:
    An iterator over {"image": float32 [b, h, w, c], "label": int32 [b]}, with b
    the shard's share of the batch.

  Raises:
    ValueError: where an argument does not fit.
  """
  check_plan(len(split), batch_size, seed, start_step, num_steps, shard)
  if crop_padding < 0:
    raise ValueError(f"crop_padding={crop_padding} must not be negative")
  channels = split.images.shape[-1]
  mean_, std_ = channel_statistics(mean, std, channels)
  tf = import_tensorflow()
  images = tf.constant(split.images)
  labels = tf.constant(split.labels)

  def batch(positions: "tf.Tensor", draws: Any) -> dict[str, "tf.Tensor"]:
    image = tf.gather(images, positions)
    if crop_padding:
      image = _augmentation.crop(image, draws.corner, crop_padding)
    if flip:
      image = _augmentation.mirror(image, draws.flip)
    image = (tf.cast(image, tf.float32) / 255.0 - mean_) / std_
    return {"image": image, "label": tf.gather(labels, positions)}

  plan = _plan(split, batch_size, seed, start_step, crop_padding, shard)
  batches = plan.map(batch, num_parallel_calls=_THREADS)
  if num_steps is not None:
    batches = batches.take(num_steps)
  options = tf.data.Options()
  options.deterministic = True
  options.autotune.enabled = False
  options.threading.private_threadpool_size = _THREADS
  options.threading.max_intra_op_parallelism = 1
  batches = batches.prefetch(_BATCHES_AHEAD).with_options(options)
  return iter(batches.as_numpy_iterator())


def train_indices(
  split: Split, *, batch_size: int, seed: int, step: int
) -> Int64[np.ndarray, " b"]:
  """The ids of a training batch's examples, row by row.

  Args:
    split: the examples.
    batch_size: as in `train_batches`.
    seed: as in `train_batches`.
    step: the batch's step, counted from the start of training.

  Raises:
    ValueError: where an argument does not fit.
  """
  check_plan(len(split), batch_size, seed, step, 1, (0, 1))
  epoch, step = divmod(step, steps_per_epoch(len(split), batch_size))
  order = _augmentation.shuffled(
    len(split), seed=seed, epoch=import_tensorflow().constant(epoch, "int64")
  )
  rows = np.arange(step * batch_size, (step + 1) * batch_size)
  return split.ids[order.numpy()[rows % len(split)]]


def _plan(
  split: Split,
  batch_size: int,
  seed: int,
  start_step: int,
  crop_padding: int,
  shard: tuple[int, int],
) -> "tf.data.Dataset":
  """Positions and draws of every step's examples, epoch after epoch."""
  tf = import_tensorflow()
  count = len(split)
  steps = steps_per_epoch(count, batch_size)
  first_epoch, first_step = divmod(start_step, steps)
  share = batch_size // shard[1]
  mine = slice(shard[0] * share, (shard[0] + 1) * share)
  ids = tf.constant(split.ids)

  def epoch_plan(epoch: "tf.Tensor") -> "tf.data.Dataset":
    order = _augmentation.shuffled(count, seed=seed, epoch=epoch)
    wrapped = tf.concat([order, order[: steps * batch_size - count]], 0)
    positions = tf.reshape(wrapped, [steps, batch_size])[:, mine]
    done = tf.where(epoch == first_epoch, first_step, 0)
    positions = positions[done:]
    draws = _augmentation.draw(
      ids, seed=seed, epoch=epoch, crop_padding=crop_padding
    )
    drawn = _augmentation.Draws(*(tf.gather(d, positions) for d in draws))
    return tf.data.Dataset.from_tensor_slices((positions, drawn))

  epochs = tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max)
  return epochs.flat_map(epoch_plan)


def check_plan(
  count: int,
  batch_size: int,
  seed: int,
  start_step: int,
  num_steps: int | None,
  shard: tuple[int, int],
) -> None:
  """Refuses batches that `count` training examples cannot give.

  Raises:
    ValueError: names what is refused, and what is allowed.
  """
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
  check_shard(shard, batch_size)


def check_shard(shard: tuple[int, int], batch_size: int) -> None:
  """Refuses a (index, count) that does not divide the batch.

  Raises:
    ValueError: names what is refused, and what is allowed.
  """
  index, count = shard
  if not 0 <= index < count or batch_size % count:
    raise ValueError(
      f"shard={shard} must be (index, count) with 0 <= index < count, and"
      f" count must divide batch_size={batch_size}"
    )
