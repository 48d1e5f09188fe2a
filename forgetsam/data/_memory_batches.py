"""Batches of a split in memory, functions of (split, seed, step) alone."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Int64

from forgetsam.data import _augmentation
from forgetsam.data._batches import (
  Batch,
  Batches,
  PerChannel,
  channel_statistics,
  check_plan,
  eval_share,
  pad_batch,
  steps_per_epoch,
)
from forgetsam.data._rows import Column, Rows
from forgetsam.data._split import Split
from forgetsam.data._tensorflow import numpy_batches, tf

# Enough for over 100,000 small images a second, and room for the step.
_THREADS = 2
_BATCHES_AHEAD = 4


def train_batches(
  split: Split,
  *,
  batch_size: int,
  seed: int,
  start_step: int = 0,
  num_steps: int | None = None,
  mean: PerChannel = 0.0,
  std: PerChannel = 1.0,
  flip: bool = False,
  crop_padding: int = 0,
  shard: tuple[int, int] = (0, 1),
) -> Batches:
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

  Inputs that are no images (`Split.has_pixels`) are passed on as they are, and
  take none of the last four arguments but `shard`.

  Returns:
    An iterator over {"image": float32 [b, h, w, c], "label": int32 [b]}, with b
    the shard's share of the batch; with weights also "mask".

  Raises:
    ValueError: where an argument does not fit.
  """
  check_plan(len(split), batch_size, seed, start_step, num_steps, shard)
  if crop_padding < 0:
    raise ValueError(f"crop_padding={crop_padding} must not be negative")
  _check_processing(split, mean, std, flip, crop_padding)
  channels = split.images.shape[-1] if split.has_pixels else 1
  mean_, std_ = channel_statistics(mean, std, channels)
  columns = {n: _reader(column) for n, column in _columns(split).items()}

  def batch(positions: "tf.Tensor", draws: Any) -> dict[str, "tf.Tensor"]:
    rows = {n: read(positions) for n, read in columns.items()}
    if not split.has_pixels:
      return rows
    image = rows["image"]
    if crop_padding:
      image = _augmentation.crop(image, draws.corner, crop_padding)
    if flip:
      image = _augmentation.mirror(image, draws.flip)
    image = (tf.cast(image, tf.float32) / 255.0 - mean_) / std_
    return {**rows, "image": image}

  plan = _plan(split, batch_size, seed, start_step, crop_padding, shard)
  as_written = tf.autograph.experimental.do_not_convert
  batches = plan.map(as_written(batch), num_parallel_calls=_THREADS)
  if num_steps is not None:
    batches = batches.take(num_steps)
  return numpy_batches(batches, threads=_THREADS, ahead=_BATCHES_AHEAD)


def train_positions(
  count: int, *, batch_size: int, seed: int, start_step: int, num_steps: int
) -> Int64[np.ndarray, "steps b"]:
  """Positions, among `count` examples, that `train_batches` takes at each step.

  Args:
    count: number of examples in the split.
    batch_size: as in `train_batches`.
    seed: as in `train_batches`.
    start_step: as in `train_batches`.
    num_steps: number of steps.

  Returns:
    One row a step, in the order of the batch's rows.

  Raises:
    ValueError: where an argument does not fit.
  """
  check_plan(count, batch_size, seed, start_step, num_steps, (0, 1))
  steps = steps_per_epoch(count, batch_size)
  first, last = start_step // steps, -(-(start_step + num_steps) // steps)
  epochs = [
    _epoch_positions(count, batch_size, seed, tf.constant(epoch, tf.int64))
    for epoch in range(first, last)
  ]
  none = np.zeros((0, batch_size), np.int64)
  rows = np.concatenate([none, *(epoch.numpy() for epoch in epochs)])
  done = start_step - first * steps
  return rows[done : done + num_steps].astype(np.int64)


def eval_batches(
  split: Split,
  *,
  batch_size: int,
  mean: PerChannel = 0.0,
  std: PerChannel = 1.0,
  shard: tuple[int, int] = (0, 1),
  groups: bool = False,
) -> Batches:
  """Normalised batches of one size that hold every example once, in order.

  Args:
    split: the examples.
    batch_size: rows of every batch, over all shards; it may exceed the split.
    mean: as in `train_batches`.
    std: as in `train_batches`.
    shard: (index, count): yields only the index-th of `count` parts of the
      split, in as many batches for every index.
    groups: whether to mark the groups that the split has.

  Returns:
    An iterator over {"image": float32 [b, h, w, c], "label": int32 [b],
    "mask": float32 [b]}. The mask is 1 for an example, or its weights, and 0
    for padding, whose image and label are zeros. Inputs that are no images are
    as they are. With `groups`, "group/NAME": bool [b] marks the examples of
    each.

  Raises:
    ValueError: where an argument does not fit.
  """
  rows, start, stop, steps = eval_share(len(split), batch_size, shard)
  _check_processing(split, mean, std, flip=False, crop_padding=0)
  channels = split.images.shape[-1] if split.has_pixels else 1
  mean_, std_ = channel_statistics(mean, std, channels)
  columns = _columns(split)

  def batches() -> Iterator[Batch]:
    for step in range(steps):
      first = min(start + step * rows, stop)
      here = slice(first, min(first + rows, stop))
      batch = {name: column[here] for name, column in columns.items()}
      for name, mask in split.groups.items() if groups else ():
        batch[f"group/{name}"] = mask[here]
      batch.setdefault("mask", np.ones(len(batch["label"]), np.float32))
      if split.has_pixels:
        images = batch["image"].astype(np.float32)
        batch["image"] = (images / np.float32(255) - mean_) / std_
      yield pad_batch(batch, rows)

  return batches()


def _reader(column: Column) -> "Callable[[tf.Tensor], tf.Tensor]":
  """Gives rows at positions, of a copy in memory or from where they lie."""
  if not isinstance(column, Rows):
    held = tf.constant(column)
    return lambda positions: tf.gather(held, positions)
  read, dtype, shape = column.read, column.dtype, column.shape[1:]

  def read_rows(positions: "tf.Tensor") -> "tf.Tensor":
    rows = tf.numpy_function(read, [positions], dtype, stateful=False)
    return tf.ensure_shape(rows, [positions.shape[0], *shape])

  return read_rows


def _columns(split: Split) -> dict[str, Column]:
  """The arrays that batches are made of, by their names there."""
  columns = {"image": split.images, "label": split.labels}
  if split.weights is not None:
    columns["mask"] = split.weights
  return columns


def _check_processing(
  split: Split,
  mean: PerChannel,
  std: PerChannel,
  flip: bool,
  crop_padding: int,
) -> None:
  """Refuses what is done to images alone where the inputs are others."""
  if split.has_pixels:
    return
  for name, value, idle in [
    ("mean", mean, 0.0),
    ("std", std, 1.0),
    ("flip", flip, False),
    ("crop_padding", crop_padding, 0),
  ]:
    if np.any(np.asarray(value) != idle):
      shape = [*split.images.shape]
      raise ValueError(
        f"{name}={value} is for images, uint8 [n, height, width, channels];"
        f" these inputs are {split.images.dtype} {shape}: leave it out"
      )


def _plan(
  split: Split,
  batch_size: int,
  seed: int,
  start_step: int,
  crop_padding: int,
  shard: tuple[int, int],
) -> "tf.data.Dataset":
  """Positions and draws of every step's examples, epoch after epoch."""
  count = len(split)
  first_epoch, first_step = divmod(
    start_step, steps_per_epoch(count, batch_size)
  )
  share = batch_size // shard[1]
  mine = slice(shard[0] * share, (shard[0] + 1) * share)
  ids = tf.constant(split.ids)

  def epoch_plan(epoch: "tf.Tensor") -> "tf.data.Dataset":
    positions = _epoch_positions(count, batch_size, seed, epoch)[:, mine]
    done = tf.where(epoch == first_epoch, first_step, 0)
    positions = positions[done:]
    draws = _augmentation.draw(
      ids, seed=seed, epoch=epoch, crop_padding=crop_padding
    )
    drawn = _augmentation.Draws(*(tf.gather(d, positions) for d in draws))
    return tf.data.Dataset.from_tensor_slices((positions, drawn))

  epochs = tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max)
  as_written = tf.autograph.experimental.do_not_convert
  return epochs.flat_map(as_written(epoch_plan))


def _epoch_positions(
  count: int, batch_size: int, seed: int, epoch: "tf.Tensor"
) -> "tf.Tensor":
  """An epoch's order, a row a step; the last row wraps into the first."""
  steps = steps_per_epoch(count, batch_size)
  order = _augmentation.shuffled(count, seed=seed, epoch=epoch)
  wrapped = tf.concat([order, order[: steps * batch_size - count]], 0)
  return tf.reshape(wrapped, [steps, batch_size])
