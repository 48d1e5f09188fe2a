"""A split that is read from disk, batch after batch."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int32, Int64

from forgetsam.data import _sources
from forgetsam.data._train_batches import check_plan, steps_per_epoch
from forgetsam.data.streaming import (
  _corrupt,
  _crops,
  _decode,
  _pipeline,
  _records,
)
from forgetsam.data.streaming._options import StreamOptions

if TYPE_CHECKING:
  import tensorflow as tf

# As many processes as a batch has lanes can share it and still make the same.
# More lanes than 16 keep at least 8 rows each, for one process is a GPU's.
_FEW_LANES, _MOST_LANES, _ROWS_OF_A_LANE = 16, 512, 8


def num_lanes(batch_size: int) -> int:
  """The parts that a batch is made of, a function of its size alone.

  They divide the batch, and are divided by what divides both it and 16: a power
  of two, as numbers of processes are.

  Example:
    >>> num_lanes(64), num_lanes(1000), num_lanes(1024), num_lanes(4096)
    (16, 8, 128, 512)
  """
  most = min(batch_size // _ROWS_OF_A_LANE, _MOST_LANES)
  lanes = math.gcd(batch_size, _FEW_LANES)
  while 2 * lanes <= most and batch_size % (2 * lanes) == 0:
    lanes *= 2
  return lanes


@dataclasses.dataclass(frozen=True, eq=False)
class StreamedSplit:
  """Encoded examples on disk and what is done to them: a `BatchSource`.

  Attributes:
    name: the set's and the split's, for messages.
    records: where the examples are.
    parse: takes a serialised example apart.
    image_shape: height, width, channels as stored; None for what varies.
    num_classes: number of classes K.
    multi_label: whether labels are [b, K], 1 for each class that is right.
    classes: the classes that occur, where they are known to be a part of all.
    options: what is done to the images.
    left_out: number of corrupt examples that were left out.
  """

  name: str
  records: _records.Records
  parse: _pipeline.Parse
  image_shape: tuple[int | None, int | None, int]
  num_classes: int
  multi_label: bool
  classes: Int32[np.ndarray, " c"] | None
  options: StreamOptions
  left_out: int = 0

  def __len__(self) -> int:
    """The number of examples, unlabelled ones included."""
    return int(np.sum(self.records.take))

  @property
  def eval_shape(self) -> tuple[int, int, int]:
    """Height, width and channels of an image in evaluation batches."""
    crop = self.options.eval_crop
    if crop.short_side is not None:
      return (crop.size, crop.size, self.image_shape[-1])
    # Images that are taken as they are have one shape.
    shape: Any = self.image_shape
    return shape

  def part(self, start: int, stop: int) -> "StreamedSplit":
    """The examples at positions `start` to `stop`."""
    records = _records.part(self.records, start, stop)
    return dataclasses.replace(self, records=records)

  def train_batches(
    self,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    num_steps: int | None = None,
    shard: tuple[int, int] = (0, 1),
  ) -> _sources.Batches:
    """Shuffled random crops, from `start_step` on.

    Every epoch is shuffled anew, through a buffer; the end of its last batch
    repeats examples from the epoch's start. The order is drawn from (seed,
    epoch), crops and flips from (seed, epoch, position of the example): a run
    that resumes, or that more or fewer processes share, gets the same batches,
    bit for bit.

    Args:
      batch_size: examples per step, over all processes.
      seed: seed of the orders, crops and flips; the run's.
      start_step: first step to yield, counted from the start of training. What
        comes before it in its epoch is read, but not decoded.
      num_steps: steps to yield; None never ends.
      shard: (index, count): yields only the index-th of `count` consecutive
        parts of each batch, and reads no other examples.

    Returns:
      An iterator over {"image": float32 [b, size, size, channels], "label":
      int32 [b]}, or float32 [b, K] in multi-label sets.

    Raises:
      ValueError: where an argument does not fit.
      DataError: while iterating, where an example is corrupt.
    """
    check_plan(len(self), batch_size, seed, start_step, num_steps, shard)
    share = batch_size // shard[1]
    examples = self._examples(batch_size, seed, start_step, shard)
    if num_steps is not None:
      examples = examples.take(num_steps * share)
    channels, normalise = self._normaliser()

    def example(
      draws: "tf.Tensor", serialised: "tf.Tensor"
    ) -> dict[str, "tf.Tensor"]:
      encoded, label = self.parse(serialised)
      pixels = _decode.training_image(
        encoded,
        self.options.train_crop,
        draws,
        channels=channels,
      )
      return {"image": normalise(pixels), "label": label}

    def suspects(number: int) -> Iterator[Int64[np.ndarray, " n"]]:
      # The batch's own, then what is read ahead of it.
      ahead = 2 + self.options.shuffle_buffer // batch_size
      for steps in (1, ahead):
        yield self._positions(batch_size, seed, start_step + number, steps)

    batches = _pipeline.run(
      examples, example, rows=share, threads=self.options.num_threads
    )
    return self._guarded(batches, suspects)

  def train_indices(
    self, *, batch_size: int, seed: int, step: int
  ) -> Int64[np.ndarray, " b"]:
    """See `BatchSource`: the order is drawn again, and no file is read."""
    check_plan(len(self), batch_size, seed, step, 1, (0, 1))
    return self._positions(batch_size, seed, step, 1)

  def _positions(
    self, batch_size: int, seed: int, step: int, steps: int
  ) -> Int64[np.ndarray, " n"]:
    examples = self._examples(
      batch_size, seed, step, (0, 1), read_run=_records.positions
    )
    rows = examples.take(steps * batch_size).as_numpy_iterator()
    return np.array([position for _, position in rows], np.int64)

  def _examples(
    self,
    batch_size: int,
    seed: int,
    start_step: int,
    shard: tuple[int, int],
    **options: Any,
  ) -> "tf.data.Dataset":
    """A shard's examples from a step on, in the order of its batches' rows."""
    index, count = shard
    lanes = num_lanes(batch_size)
    if lanes % count:
      raise ValueError(
        f"shard={shard}: {count} processes cannot share a batch of"
        f" {batch_size}; their number must divide {lanes}"
      )
    steps = steps_per_epoch(len(self), batch_size)
    epoch, step = divmod(start_step, steps)
    return _records.shuffled(
      self.records,
      seed=seed,
      first_epoch=epoch,
      first_example=step * batch_size // lanes,
      examples_per_lane=steps * batch_size // lanes,
      num_lanes=lanes,
      lanes=range(index * lanes // count, (index + 1) * lanes // count),
      rows_per_lane=batch_size // lanes,
      shuffle_buffer=self.options.shuffle_buffer,
      num_draws=_crops.NUM_DRAWS,
      **options,
    )

  def eval_batches(
    self, *, batch_size: int, shard: tuple[int, int] = (0, 1)
  ) -> _sources.Batches:
    """Batches of one size that hold every example once, in order.

    Args:
      batch_size: rows of every batch, over all processes.
      shard: (index, count): yields only the index-th of `count` parts of the
        split, and reads no other examples.

    Returns:
      An iterator over {"image": float32 [b, h, w, channels], "label": int32
      [b] or float32 [b, K], "mask": float32 [b]}. The mask is 0 for padding,
      and in multi-label sets for images without a label.

    Raises:
      ValueError: where an argument does not fit; while iterating, for images
        without a label in sets where each must have one.
      DataError: while iterating, where an example is corrupt.
    """
    share, start, stop, steps = _sources.eval_share(
      len(self), batch_size, shard
    )
    first = int(self.records.first[0])
    mine = _records.part(self.records, first + start, first + stop)
    channels, normalise = self._normaliser()

    def example(serialised: "tf.Tensor") -> dict[str, "tf.Tensor"]:
      encoded, label = self.parse(serialised)
      pixels = _decode.evaluation_image(
        encoded,
        self.options.eval_crop,
        channels=channels,
      )
      return {"image": normalise(pixels), "label": label}

    batches = _pipeline.run(
      _records.in_order(mine),
      example,
      rows=share,
      threads=self.options.num_threads,
    )
    origins = _corrupt.origins(mine)

    def suspects(number: int) -> Iterator[Int64[np.ndarray, " n"]]:
      yield origins[number * share : (number + 1) * share]
      yield origins[number * share :]

    return self._masked(self._guarded(batches, suspects), share, steps)

  def without_corrupt(self) -> "StreamedSplit":
    """The split without what cannot be read or decoded; it reads all of it.

    Raises:
      DataError: nothing is left.
    """
    records = _corrupt.without_corrupt(
      self.name, self.records, self._check, self.options.num_threads
    )
    left_out = len(self) - int(np.sum(records.take))
    return dataclasses.replace(self, records=records, left_out=left_out)

  def _check(self, serialised: "tf.Tensor") -> "tf.Tensor":
    encoded, _ = self.parse(serialised)
    return _decode.check_image(encoded, channels=self.image_shape[-1])

  def _guarded(
    self,
    batches: _sources.Batches,
    suspects: Callable[[int], Iterator[Int64[np.ndarray, " n"]]],
  ) -> _sources.Batches:
    return _corrupt.guarded(
      batches,
      self.name,
      self.records,
      self._check,
      self.options.num_threads,
      suspects,
    )

  def _masked(
    self, batches: _sources.Batches, rows: int, steps: int
  ) -> _sources.Batches:
    """Pads to `rows` and adds masks, `steps` times."""
    empty = self._no_rows()
    for _ in range(steps):
      # Of unequal shards, the smaller ones may have a batch less.
      batch = next(batches, empty)
      if self.multi_label:
        counts = np.any(batch["label"] > 0, axis=1)
      else:
        counts = batch["label"] >= 0
        if not np.all(counts):
          raise ValueError(
            f"{self.name} holds images without a label; choose another split"
          )
      yield _sources.pad_batch(
        {**batch, "mask": counts.astype(np.float32)}, rows
      )

  def _normaliser(self) -> "tuple[int, Callable[[tf.Tensor], tf.Tensor]]":
    """The number of channels, and what makes pixels a model's input."""
    channels = self.image_shape[-1]
    options = self.options
    return channels, _pipeline.normaliser(options.mean, options.std, channels)

  def _no_rows(self) -> dict[str, np.ndarray]:
    image = (0, *self.eval_shape)
    label = (0, self.num_classes) if self.multi_label else 0
    return {
      "image": np.zeros(image, np.float32),
      "label": np.zeros(label, np.float32 if self.multi_label else np.int32),
    }
