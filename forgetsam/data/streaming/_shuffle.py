"""The order of streamed training examples, and their random numbers.

A batch is made of consecutive equal parts, and each part is filled by a *lane*:
a reader of its own range of the split. The examples of a lane depend on (seed,
epoch, lane) alone, so that processes can share the lanes out among them, each
reading only its own records, and together still make the same batches.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from forgetsam.data._batches import steps_per_epoch
from forgetsam.data._tensorflow import permutation, tf
from forgetsam.data.files import Records, part

# Streams of random numbers within an epoch.
_OFFSET, _FILES, _WINDOW, _CROP = 0, 1, 2, 3
# Open at once by all lanes together, and by one.
_FILES_AT_ONCE, _FILES_OF_A_LANE = 64, 4
_NUMBERS_A_STEP = 4  # Philox gives four float32 for each step of its counter.
# As many processes as a batch has lanes can share it and still make the same.
# More lanes than 16 keep at least 8 rows each, for one process is a GPU's.
_FEW_LANES, _MOST_LANES, _ROWS_OF_A_LANE = 16, 512, 8


def num_lanes(batch_size: int) -> int:
  """The parts that a batch is made of, a function of its size alone.

  They divide the batch, and are divided by what divides both it and 16: a power
  of two, as numbers of processes are.
  """
  most = min(batch_size // _ROWS_OF_A_LANE, _MOST_LANES)
  lanes = math.gcd(batch_size, _FEW_LANES)
  while 2 * lanes <= most and batch_size % (2 * lanes) == 0:
    lanes *= 2
  return lanes


def shuffled(
  records: Records,
  read: Callable[[Records], Any],
  *,
  batch_size: int,
  seed: int,
  start_step: int,
  shard: tuple[int, int],
  shuffle_buffer: int,
  num_draws: int,
) -> "tf.data.Dataset":
  """(draws, example), row by row of a shard's batches, without end.

  Draws are uniform in [0, 1), functions of (seed, epoch, position) alone.

  Each epoch deals the split anew to the lanes, in ranges that begin at a random
  position. A lane reads its range's files in a random order, several at once
  where lanes are few, and permutes windows of consecutive records. At the
  epoch's end it begins its range again, as far as its part of the last batch
  needs. All lanes' windows together hold `shuffle_buffer` records.

  `read` gives the dataset of a run's examples, or of anything in their stead.
  """
  index, shards = shard
  lanes = num_lanes(batch_size)
  if lanes % shards:
    raise ValueError(
      f"shard={shard}: {shards} processes cannot share a batch of"
      f" {batch_size}; their number must divide {lanes}"
    )
  # There is no Python control flow for AutoGraph to rewrite, in seconds.
  as_written = tf.autograph.experimental.do_not_convert
  steps = steps_per_epoch(records.total, batch_size)
  first_epoch, first_step = divmod(start_step, steps)
  rows = batch_size // lanes
  lane_examples = functools.partial(
    _lane_examples,
    records,
    read,
    seed=seed,
    num_lanes=lanes,
    window=max(1, shuffle_buffer // lanes),
    num_draws=num_draws,
  )

  @as_written
  def epoch_of_lane(lane: "tf.Tensor", epoch: "tf.Tensor") -> "tf.data.Dataset":
    start = tf.constant(first_step * rows, tf.int64)
    done = tf.where(epoch == first_epoch, start, 0)
    examples = lane_examples(lane, epoch)
    return examples.repeat().skip(done).take(steps * rows - done)

  @as_written
  def all_of_lane(lane: "tf.Tensor") -> "tf.data.Dataset":
    epochs = tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max)
    # A lane reads ahead while the others have their turn.
    return epochs.flat_map(
      as_written(lambda epoch: epoch_of_lane(lane, epoch))
    ).prefetch(rows)

  mine = index * lanes // shards, (index + 1) * lanes // shards
  return tf.data.Dataset.range(*mine).interleave(
    all_of_lane, cycle_length=lanes // shards, block_length=rows
  )


def _lane_examples(
  records: Records,
  read: Callable[[Records], Any],
  lane: "tf.Tensor",
  epoch: "tf.Tensor",
  *,
  seed: int,
  num_lanes: int,
  window: int,
  num_draws: int,
) -> "tf.data.Dataset":
  """Draws and examples of a lane's range of the split, once."""
  as_written = tf.autograph.experimental.do_not_convert
  count = records.total
  begin = int(records.first[0])  # The positions need not begin at 0.
  # Twice around the circle: a range may pass the end of the split.
  around = Records(*(np.tile(field, 2) for field in records))
  around.first[len(records.first) :] += count
  offset = begin + tf.random.stateless_uniform(
    [], _key(seed, epoch, _OFFSET), 0, count, tf.int64, alg="philox"
  )
  mine = part(
    around,
    offset + lane * count // num_lanes,
    offset + (lane + 1) * count // num_lanes,
  )
  files = permutation(tf.size(mine.path), _key(seed, epoch, _FILES, lane))
  runs = tf.data.Dataset.from_tensor_slices(
    tuple(tf.gather(field, files) for field in mine)
  )

  @as_written
  def read_run(*fields: "tf.Tensor") -> "tf.data.Dataset":
    run = Records(*fields)
    position = (run.first - begin) % count + begin
    draws = _draws(_key(seed, epoch, _CROP), position, run.take, num_draws)
    rows = tf.data.Dataset.from_tensor_slices(draws)
    return tf.data.Dataset.zip(rows, read(run))

  @as_written
  def permuted(
    number: "tf.Tensor", rows: "tuple[tf.Tensor, tf.Tensor]"
  ) -> "tuple[tf.Tensor, tf.Tensor]":
    key = _key(seed, epoch, _WINDOW, lane, number)
    order = permutation(tf.size(rows[1]), key)
    draws, examples = (tf.gather(field, order) for field in rows)
    return draws, examples

  at_once = min(max(1, _FILES_AT_ONCE // num_lanes), _FILES_OF_A_LANE)
  windows = runs.interleave(read_run, cycle_length=at_once).batch(window)
  return windows.enumerate().map(permuted).unbatch()


def _key(seed: int, *numbers: "int | tf.Tensor") -> "tf.Tensor":
  """The key of a stateless draw from a seed and any further numbers."""
  folded = tf.constant([seed, 0], tf.int64)
  for number in numbers:
    folded = tf.random.fold_in(folded, tf.cast(number, tf.int64), alg="philox")
  return folded


def _draws(
  draw_key: "tf.Tensor", first: "tf.Tensor", take: "tf.Tensor", number: int
) -> "tf.Tensor":
  """Rows `first` to `first + take` of an endless table of random numbers.

  A row is a few steps of the generator's counter: with a key for each row, as
  stateless operations offer, drawing would cost half as much as decoding.
  """
  steps = -(-number // _NUMBERS_A_STEP)
  state = tf.raw_ops.StatelessRandomGetKeyCounter(seed=draw_key)
  passed = tf.stack(
    [tf.cast(first * steps, tf.uint64), tf.constant(0, tf.uint64)]
  )
  numbers = tf.raw_ops.StatelessRandomUniformV2(
    shape=[take, tf.constant(steps * _NUMBERS_A_STEP, tf.int64)],
    key=state.key,
    counter=state.counter + passed,
    alg=tf.constant(1),  # Philox
  )
  return numbers[:, :number]
