"""Serialised examples of a TFDS split, in order or shuffled, by position.

A batch is made of consecutive equal parts, and each part is filled by a *lane*:
a reader of its own range of the split. What a lane yields depends on (seed,
epoch, lane) alone, so that processes can share the lanes out among them, each
reading only its own records, and together still make the same batches.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from forgetsam.data._tensorflow import import_tensorflow

if TYPE_CHECKING:
  import tensorflow as tf
  import tensorflow_datasets as tfds

# Streams of random numbers within an epoch.
_OFFSET, _FILES, _WINDOW, _CROP = 0, 1, 2, 3
# Open at once by all lanes together, and by one.
_FILES_AT_ONCE, _FILES_OF_A_LANE = 64, 4
_NUMBERS_A_STEP = 4  # Philox gives four float32 for each step of its counter.


class Records(NamedTuple):
  """Runs of consecutive records: an array or tensor per field, a row per run.

  `first` is the position in the split of a run's first record, `skip` its
  position in the file, and `origin` its position in TFDS's split, which may
  hold examples that were left out.
  """

  path: Any
  skip: Any
  take: Any
  first: Any
  origin: Any


def find_records(builder: "tfds.core.DatasetBuilder", split: str) -> Records:
  """The records of a split; reads no data.

  Raises:
    ValueError: the set was not prepared in the TFRecord format.
  """
  file_format = builder.info.file_format
  if file_format is None or file_format.value != "tfrecord":
    raise ValueError(
      f"{builder.info.full_name} is stored as {file_format}; prepare it in the"
      " TFRecord format (`tfds build --file_format=tfrecord`)"
    )
  files = builder.info.splits[split].file_instructions
  takes = np.array([file.take for file in files], np.int64)
  return Records(
    path=np.array([str(file.filename) for file in files]),
    skip=np.array([file.skip for file in files], np.int64),
    take=takes,
    first=np.cumsum(takes) - takes,
    origin=np.cumsum(takes) - takes,
  )


def part(records: Records, start: int, stop: int) -> Records:
  """The records at positions `start` to `stop`."""
  return Records(*(field.numpy() for field in _part(records, start, stop)))


def in_order(records: Records) -> "tf.data.Dataset":
  """Serialised examples, in the order of the split."""
  tf = import_tensorflow()
  as_written = tf.autograph.experimental.do_not_convert
  runs = tf.data.Dataset.from_tensor_slices(tuple(records))
  return runs.flat_map(as_written(serialised))


def serialised(
  path: "tf.Tensor",
  skip: "tf.Tensor",
  take: "tf.Tensor",
  first: "tf.Tensor",
  origin: "tf.Tensor",
) -> "tf.data.Dataset":
  """The records of one run."""
  tf = import_tensorflow()
  records = tf.data.TFRecordDataset(path).skip(skip).take(take)
  # Fewer records than TFDS counted would silently repeat others.
  return records.apply(tf.data.experimental.assert_cardinality(take))


def positions(
  path: "tf.Tensor",
  skip: "tf.Tensor",
  take: "tf.Tensor",
  first: "tf.Tensor",
  origin: "tf.Tensor",
) -> "tf.data.Dataset":
  """Their positions in TFDS's split; reads no file."""
  del path, skip, first
  return import_tensorflow().data.Dataset.range(origin, origin + take)


def shuffled(
  records: Records,
  *,
  seed: int,
  first_epoch: int,
  first_example: int,
  examples_per_lane: int,
  num_lanes: int,
  lanes: range,
  rows_per_lane: int,
  shuffle_buffer: int,
  num_draws: int,
  read_run: "Callable[..., tf.data.Dataset] | None" = None,
) -> "tf.data.Dataset":
  """(draws, serialised example), epoch after epoch, without end.

  Draws are uniform in [0, 1), functions of (seed, epoch, position) alone.

  Each epoch deals the split anew to the lanes, in ranges that begin at a random
  position. A lane reads its range's files in a random order, several at once
  where lanes are few, and permutes windows of consecutive records. At the
  epoch's end it begins its range again, as far as its part of the last batch
  needs.

  Args:
    records: where the examples are.
    seed: seed of the orders.
    first_epoch: where to begin.
    first_example: how many of a lane's examples of that epoch to pass over.
    examples_per_lane: in an epoch; at least a lane's range.
    num_lanes: parts of a batch.
    lanes: the parts to read, consecutive.
    rows_per_lane: examples of a part.
    shuffle_buffer: records in the windows of all lanes together.
    num_draws: random numbers for each example.
    read_run: what to give for the records of a run, as `serialised` does, or
      `positions` in their stead.
  """
  tf = import_tensorflow()
  read_run = serialised if read_run is None else read_run
  # There is no Python control flow for AutoGraph to rewrite, in seconds.
  as_written = tf.autograph.experimental.do_not_convert
  window = max(1, shuffle_buffer // num_lanes)
  files_at_once = min(max(1, _FILES_AT_ONCE // num_lanes), _FILES_OF_A_LANE)
  count = int(np.sum(records.take))
  # Twice around the circle: a range may pass the end of the split.
  around = Records(
    path=np.tile(records.path, 2),
    skip=np.tile(records.skip, 2),
    take=np.tile(records.take, 2),
    first=np.concatenate([records.first, records.first + count]),
    origin=np.tile(records.origin, 2),
  )
  # The positions need not begin at 0.
  begin = int(records.first[0])

  @as_written
  def epoch_of_lane(lane: "tf.Tensor", epoch: "tf.Tensor") -> "tf.data.Dataset":
    offset = begin + tf.random.stateless_uniform(
      [], _key(seed, epoch, _OFFSET), 0, count, tf.int64, alg="philox"
    )
    mine = _part(
      around,
      offset + lane * count // num_lanes,
      offset + (lane + 1) * count // num_lanes,
    )
    order = _permutation(tf.size(mine.path), _key(seed, epoch, _FILES, lane))
    files = tf.data.Dataset.from_tensor_slices(
      tuple(tf.gather(field, order) for field in mine)
    )

    @as_written
    def permuted(
      number: "tf.Tensor", records: "tuple[tf.Tensor, tf.Tensor]"
    ) -> "tuple[tf.Tensor, tf.Tensor]":
      order = _permutation(
        tf.size(records[1]), _key(seed, epoch, _WINDOW, lane, number)
      )
      draws, contents = (tf.gather(field, order) for field in records)
      return draws, contents

    @as_written
    def read(
      path: "tf.Tensor",
      skip: "tf.Tensor",
      take: "tf.Tensor",
      first: "tf.Tensor",
      origin: "tf.Tensor",
    ) -> "tf.data.Dataset":
      position = (first - begin) % count + begin
      draws = _draws(_key(seed, epoch, _CROP), position, take, num_draws)
      rows = tf.data.Dataset.from_tensor_slices(draws)
      contents = read_run(path, skip, take, position, origin)
      return tf.data.Dataset.zip(rows, contents)

    windows = files.interleave(read, cycle_length=files_at_once).batch(window)
    examples = windows.enumerate().map(permuted).unbatch().repeat()
    done = tf.where(epoch == first_epoch, tf.cast(first_example, tf.int64), 0)
    return examples.skip(done).take(examples_per_lane - done)

  @as_written
  def all_of_lane(lane: "tf.Tensor") -> "tf.data.Dataset":
    epochs = tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max)
    # A lane reads ahead while the others have their turn.
    return epochs.flat_map(
      as_written(lambda epoch: epoch_of_lane(lane, epoch))
    ).prefetch(rows_per_lane)

  return tf.data.Dataset.range(lanes.start, lanes.stop).interleave(
    all_of_lane, cycle_length=len(lanes), block_length=rows_per_lane
  )


def _key(seed: int, *numbers: "int | tf.Tensor") -> "tf.Tensor":
  """The key of a stateless draw from a seed and any further numbers."""
  tf = import_tensorflow()
  folded = tf.constant([seed, 0], tf.int64)
  for number in numbers:
    folded = tf.random.fold_in(folded, tf.cast(number, tf.int64), alg="philox")
  return folded


def _part(
  records: Records, start: "int | tf.Tensor", stop: "int | tf.Tensor"
) -> Records:
  """The records at positions `start` to `stop`."""
  tf = import_tensorflow()
  first = tf.maximum(records.first, start)
  last = tf.minimum(records.first + records.take, stop)
  passed = first - records.first
  part = Records(
    path=records.path,
    skip=records.skip + passed,
    take=last - first,
    first=first,
    origin=records.origin + passed,
  )
  return Records(*(tf.boolean_mask(field, last > first) for field in part))


def _draws(
  draw_key: "tf.Tensor", first: "tf.Tensor", take: "tf.Tensor", number: int
) -> "tf.Tensor":
  """Rows `first` to `first + take` of an endless table of random numbers.

  A row is a few steps of the generator's counter: with a key for each row, as
  stateless operations offer, drawing would cost half as much as decoding.
  """
  tf = import_tensorflow()
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


def _permutation(count: "tf.Tensor", draw_key: "tf.Tensor") -> "tf.Tensor":
  tf = import_tensorflow()
  # Not stateless_shuffle: its result may change between versions.
  keys = tf.random.stateless_uniform(
    [count], draw_key, None, None, tf.int64, alg="philox"
  )
  return tf.argsort(keys, stable=True)
