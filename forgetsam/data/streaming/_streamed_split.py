"""A split that is read from disk, batch after batch."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64

from forgetsam.data._batches import (
  Batches,
  check_plan,
  eval_share,
  pad_batch,
)
from forgetsam.data._identity import SetIdentity
from forgetsam.data._tensorflow import numpy_batches, tf
from forgetsam.data.files import (
  Agree,
  Checker,
  Parse,
  Records,
  Store,
  check_image,
  guard_labels,
  in_order,
  part,
  read_positions,
  serialised,
)
from forgetsam.data.streaming import _decode
from forgetsam.data.streaming._crops import NUM_DRAWS
from forgetsam.data.streaming._options import StreamOptions
from forgetsam.data.streaming._shuffle import shuffled

_BATCHES_AHEAD = 2


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
    identity: what the set was, where it was read from files.
    store: reads the examples; None where they are TFRecords.
    groups: names of groups of examples, where the set has any.
    parse_groups: takes whether it is in each group out of a serialised example.
  """

  name: str
  records: Records
  parse: Parse
  image_shape: tuple[int | None, int | None, int]
  num_classes: int
  multi_label: bool
  classes: Int32[np.ndarray, " c"] | None
  options: StreamOptions
  left_out: int = 0
  identity: SetIdentity | None = None
  store: Store | None = None
  groups: tuple[str, ...] = ()
  parse_groups: Callable[[Any], Mapping[str, Any]] = lambda _: {}

  @property
  def eval_dtype(self) -> np.dtype[Any]:
    """Float32."""
    return np.dtype(np.float32)

  def __len__(self) -> int:
    return self.records.total

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
    return dataclasses.replace(self, records=_part(self.records, start, stop))

  def train_batches(
    self,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    num_steps: int | None = None,
    shard: tuple[int, int] = (0, 1),
  ) -> Batches:
    """Shuffled random crops, from `start_step` on; see `BatchSource`.

    Every epoch is shuffled anew, through a buffer; the end of its last batch
    repeats examples from the epoch's start. The order is drawn from (seed,
    epoch), crops and flips from (seed, epoch, position of the example): a run
    that resumes, or that more or fewer processes share, gets the same batches,
    bit for bit. Before `start_step`, its epoch is read, but not decoded.

    Raises:
      ValueError: where an argument does not fit.
      DataError: while iterating, where an example is corrupt or has an
        impossible label.
    """
    check_plan(len(self), batch_size, seed, start_step, num_steps, shard)
    share = batch_size // shard[1]
    read = serialised if self.store is None else self.store.read
    examples = self._shuffled(read, batch_size, seed, start_step, shard)
    if num_steps is not None:
      examples = examples.take(num_steps * share)

    def pixels(draws: "tf.Tensor", encoded: "tf.Tensor") -> "tf.Tensor":
      crop, channels = self.options.train_crop, self.image_shape[-1]
      fast = self.options.fast_decode
      return _decode.training_image(
        encoded, crop, draws, channels=channels, fast=fast
      )

    def suspects(number: int) -> Iterator[Int64[np.ndarray, " n"]]:
      # The batch's own, then what is read ahead of it.
      ahead = 2 + self.options.shuffle_buffer // batch_size
      for steps in (1, ahead):
        yield self._positions(batch_size, seed, start_step + number, steps)

    def positions(number: int) -> Int64[np.ndarray, " n"]:
      whole = self._positions(batch_size, seed, start_step + number, 1)
      return whole[shard[0] * share :]

    batches = self._batches(examples, pixels, share)
    batches = self._checker().guard(batches, suspects)
    return guard_labels(batches, self.name, positions, self.num_classes)

  def train_indices(
    self, *, batch_size: int, seed: int, step: int
  ) -> Int64[np.ndarray, " b"]:
    """See `BatchSource`: the order is drawn again, and no file is read."""
    check_plan(len(self), batch_size, seed, step, 1, (0, 1))
    rows = self._positions(batch_size, seed, step, 1)
    return rows if self.store is None else self.store.ids[rows]

  def eval_batches(
    self,
    *,
    batch_size: int,
    shard: tuple[int, int] = (0, 1),
    groups: bool = False,
  ) -> Batches:
    """Every example once, in order; see `BatchSource`.

    The mask is 0 for padding, and in multi-label sets for images without a
    label.

    Raises:
      ValueError: where an argument does not fit.
      DataError: while iterating, where an example is corrupt or has an
        impossible label.
    """
    share, start, stop, steps = eval_share(len(self), batch_size, shard)
    first = int(self.records.first[0])
    mine = _part(self.records, first + start, first + stop)
    origins = mine.origins()

    def pixels(encoded: "tf.Tensor") -> "tf.Tensor":
      crop, channels = self.options.eval_crop, self.image_shape[-1]
      fast = self.options.fast_decode
      return _decode.evaluation_image(
        encoded, crop, channels=channels, fast=fast
      )

    def suspects(number: int) -> Iterator[Int64[np.ndarray, " n"]]:
      yield origins[number * share : (number + 1) * share]
      yield origins[number * share :]

    examples = in_order(mine, self.store)
    read = [self.parse_groups] if groups else []
    batches = self._batches(examples, pixels, share, *read)
    batches = self._checker().guard(batches, suspects)
    if not self.multi_label:  # theirs were numbers before they became rows
      batches = guard_labels(
        batches,
        self.name,
        lambda number: origins[number * share :],
        self.num_classes,
      )
    names = self.groups if groups else ()
    return self._masked(batches, share, steps, names)

  def without_corrupt(self, agree: Agree) -> "StreamedSplit":
    """The split without what cannot be read or decoded; it reads all of it.

    Args:
      agree: as in `data.stream`.

    Raises:
      DataError: nothing is left.
    """
    records = self._checker().sound_records(agree)
    left_out = len(self) - records.total
    return dataclasses.replace(self, records=records, left_out=left_out)

  def _checker(self) -> Checker:
    check = check_image(self.parse, channels=self.image_shape[-1])
    threads = self.options.num_threads
    return Checker(self.name, self.records, check, threads, self.store)

  def _shuffled(
    self,
    read: Callable[[Records], Any],
    batch_size: int,
    seed: int,
    start_step: int,
    shard: tuple[int, int],
  ) -> "tf.data.Dataset":
    return shuffled(
      self.records,
      read,
      batch_size=batch_size,
      seed=seed,
      start_step=start_step,
      shard=shard,
      shuffle_buffer=self.options.shuffle_buffer,
      num_draws=NUM_DRAWS,
    )

  def _positions(
    self, batch_size: int, seed: int, step: int, steps: int
  ) -> Int64[np.ndarray, " n"]:
    examples = self._shuffled(read_positions, batch_size, seed, step, (0, 1))
    rows = examples.take(steps * batch_size).as_numpy_iterator()
    return np.array([position for _, position in rows], np.int64)

  def _batches(
    self,
    examples: "tf.data.Dataset",
    pixels: Callable[..., Any],
    rows: int,
    groups: Callable[[Any], Mapping[str, Any]] = lambda _: {},
  ) -> Batches:
    """Decodes and batches (..., serialised example), in a fixed order.

    tf.data rather than grain: from JPEGs of 500x375 pixels to crops of 224, on
    about one core, it gives 640 to 740 images a second, and grain 490 to 550.
    """
    normalise = _decode.normaliser(
      self.options.mean, self.options.std, self.image_shape[-1]
    )

    def example(*fields: "tf.Tensor") -> dict[str, Any]:
      *draws, contents = fields
      encoded, label = self.parse(contents)
      marks = {f"group/{name}": x for name, x in groups(contents).items()}
      image = normalise(pixels(*draws, encoded))
      return {"image": image, "label": label, **marks}

    threads = self.options.num_threads
    batches = examples.map(
      tf.autograph.experimental.do_not_convert(example),
      num_parallel_calls=threads,
    ).batch(rows)
    return numpy_batches(batches, threads=threads, ahead=_BATCHES_AHEAD)

  def _masked(
    self, batches: Batches, rows: int, steps: int, groups: tuple[str, ...]
  ) -> Batches:
    """Pads to `rows` and adds masks, `steps` times."""
    label = (0, self.num_classes) if self.multi_label else 0
    empty = {
      "image": np.zeros((0, *self.eval_shape), np.float32),
      "label": np.zeros(label, np.float32 if self.multi_label else np.int32),
      **{f"group/{name}": np.zeros(0, bool) for name in groups},
    }
    for _ in range(steps):
      # Of unequal shards, the smaller ones may have a batch less.
      batch = next(batches, empty)
      if self.multi_label:
        counts = np.any(batch["label"] > 0, axis=1)
      else:
        counts = np.ones(len(batch["label"]), bool)
      yield pad_batch({**batch, "mask": counts.astype(np.float32)}, rows)


def _part(records: Records, start: int, stop: int) -> Records:
  return Records(*(field.numpy() for field in part(records, start, stop)))
