"""Streamed training batches depend on (split, seed, step) and nothing else.

The images' labels are their positions, so that a batch says what is in it.
"""

import io
import itertools
import math

import numpy as np
import pytest
from PIL import Image

from forgetsam import data
from forgetsam.data import DataError, import_tensorflow
from forgetsam.data.streaming import (
  _crops,
  _decode,
  _streamed_split,
)
from forgetsam.data.streaming._shuffle import num_lanes

pytestmark = pytest.mark.slow

N = 23
CROP = data.RandomResizedCrop(size=8)


def source(directory, *, shuffle_buffer=8, **options):
  defaults = {"mean": 0.0, "std": 1.0, "train_crop": CROP, "threads": 2}
  return data.stream_split(
    "tiny",
    "train",
    data.StreamOptions(shuffle_buffer=shuffle_buffer, **(defaults | options)),
    data_dir=directory,
  )


@pytest.fixture
def split(numbered_set):
  return source(numbered_set(N, num_shards=4))


def batches(split, num_steps, *, batch_size=6, **options):
  return list(
    split.train_batches(
      batch_size=batch_size, num_steps=num_steps, **({"seed": 3} | options)
    )
  )


def labels(steps):
  return np.stack([batch["label"] for batch in steps])


def assert_same(left, right):
  assert len(left) == len(right)
  for a, b in zip(left, right, strict=True):
    np.testing.assert_array_equal(a["label"], b["label"])
    np.testing.assert_array_equal(a["image"], b["image"])


def by_label(steps):
  """Each example's image; repeats within the steps are the very same."""
  found = {}
  for batch in steps:
    for label, image in zip(batch["label"], batch["image"], strict=True):
      np.testing.assert_array_equal(found.setdefault(int(label), image), image)
  return np.stack([found[label] for label in range(N)])


# 6 = 2 lanes of 3; 4 lanes of 3; one of 5: an epoch has 24, 24 and 25 rows.
@pytest.mark.parametrize(
  ("batch_size", "lanes"), [(6, 2), (12, 4), (5, 1), (16, 16), (23, 1)]
)
def test_an_epoch_holds_every_example_and_wraps(split, batch_size, lanes):
  steps = data.steps_per_epoch(N, batch_size)
  rows = labels(batches(split, 3 * steps, batch_size=batch_size))
  for epoch in rows.reshape(3, steps, batch_size):
    np.testing.assert_array_equal(np.unique(epoch), np.arange(N))
    # A lane is a consecutive part of every batch.
    for lane in np.split(epoch, lanes, axis=1):
      order = lane.ravel()
      once = order[: len(np.unique(order))]
      assert len(np.unique(once)) == len(once), "a repeat before the end"
      np.testing.assert_array_equal(
        order[len(once) :], order[: len(order) - len(once)]
      )
      assert len(once) in (N // lanes, -(-N // lanes))
      circle = np.sort((once - once.min()) % N)
      gaps = np.diff(np.append(np.sort(once), np.sort(once)[0] + N))
      assert (gaps > 1).sum() <= 1, f"{circle} is no range of the circle"


def test_epochs_and_seeds_have_other_orders_and_lanes(numbered_set):
  split = source(numbered_set(N), shuffle_buffer=1000)
  epochs = labels(batches(split, 8)).reshape(2, 24)
  other = labels(batches(split, 4, seed=4)).ravel()
  for left, right in [epochs, (epochs[0], other)]:
    assert (left == right).sum() < 8
  assert not np.array_equal(np.sort(epochs[0]), epochs[0])
  # In every epoch other examples share a part of the batch.
  members = {tuple(np.unique(e.reshape(4, 6)[:, :3])) for e in (*epochs, other)}
  assert len(members) == 3


def test_a_buffer_of_the_whole_split_shuffles_all_of_it(numbered_set):
  split = source(numbered_set(N), shuffle_buffer=1000)
  order = labels(batches(split, 60, batch_size=23)).ravel().reshape(60, N)
  first = order[:, 0]
  # Uniform: 60 draws from 23 leave 2 out on average; a shift would leave few.
  assert len(np.unique(first)) > 15
  steps = np.diff(order, axis=1) % N
  assert (steps == 1).mean() < 0.15, "neighbours stay neighbours"


def test_files_are_read_in_random_order(numbered_set):
  split = source(numbered_set(N, num_shards=8), shuffle_buffer=1)
  order = labels(batches(split, 4, batch_size=23)).reshape(4, N)
  first = order[:, 0]
  starts = {tuple((row - row[0]) % N) for row in order}
  assert len(starts) == 4, f"the same walk from {first}"


# Another order under a new TensorFlow would break every resumed run.
def test_order_is_fixed(split):
  expected = [4, 7, 6, 15, 0, 16, 12, 5, 14, 17, 18, 19]
  expected += [13, 8, 11, 2, 1, 21, 10, 9, 4, 3, 22, 20]
  np.testing.assert_array_equal(labels(batches(split, 4)).ravel(), expected)


@pytest.mark.parametrize("start", [1, 4, 6])
def test_resumed_batches_are_the_same_bit_for_bit(split, start):
  through = batches(split, 9)
  assert_same(batches(split, 9 - start, start_step=start), through[start:])


def test_resuming_does_not_decode_what_it_passes_over(split, monkeypatch):
  tf = import_tensorflow()
  decoded = []
  original = _decode.training_image

  def counted(encoded, *args, **kwargs):
    tf.py_function(lambda: decoded.append(1), [], [])
    return original(encoded, *args, **kwargs)

  monkeypatch.setattr(_decode, "training_image", counted)
  assert len(batches(split, 1, start_step=3)) == 1
  assert len(decoded) == 6


def test_never_ends_by_default(split):
  endless = split.train_batches(batch_size=6, seed=3)
  assert_same(list(itertools.islice(endless, 9)), batches(split, 9))


def test_a_process_of_64_reads_its_own_records_alone(numbered_set, monkeypatch):
  split = source(numbered_set(512, num_shards=8), shuffle_buffer=512)
  read = []
  original = _streamed_split.serialised

  def counted(run):
    def note(record):
      read.append(1)
      return record

    tf = import_tensorflow()
    return original(run).map(lambda r: tf.py_function(note, [r], tf.string))

  whole = labels(batches(split, 1, batch_size=512))[0]
  assert len(np.unique(whole)) == 512
  monkeypatch.setattr(_streamed_split, "serialised", counted)
  for index in (0, 17, 63):
    read.clear()
    part = labels(batches(split, 1, batch_size=512, shard=(index, 64)))[0]
    np.testing.assert_array_equal(part, whole[8 * index : 8 * index + 8])
    # The lane's own 8, and as many again that it reads ahead.
    assert 8 <= len(read) <= 16


@pytest.mark.parametrize("count", [2, 4])
def test_shards_concatenate_to_the_batch(split, count):
  options = {"batch_size": 12, "start_step": 1}
  whole = batches(split, 4, **options)
  shards = [
    batches(split, 4, shard=(index, count), **options) for index in range(count)
  ]
  joined = [
    {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    for parts in zip(*shards, strict=True)
  ]
  assert_same(joined, whole)


def test_a_shard_reads_only_its_part(numbered_set, tmp_path):
  directory = numbered_set(24, num_shards=8)
  split = source(directory)
  options = {"batch_size": 12, "shard": (1, 2)}
  expected = batches(split, 2, **options)
  mine = set(labels(expected).ravel())
  assert len(mine) == 12
  files = sorted((directory / "tiny" / "1.0.0").glob("*train.tfrecord*"))
  unread = [
    file
    for i, file in enumerate(files)
    if not mine & set(range(3 * i, 3 * i + 3))
  ]
  assert len(unread) >= 3
  for file in unread:
    file.unlink()
  assert_same(batches(split, 2, **options), expected)


def test_draws_depend_on_seed_epoch_and_example_alone(numbered_set):
  directory = numbered_set(N, num_shards=4)
  split = source(directory)
  first = by_label(batches(split, 4))
  for other, steps, batch_size in [
    (split, 5, 5),
    (source(directory, shuffle_buffer=1000), 2, 16),
  ]:
    np.testing.assert_array_equal(
      by_label(batches(other, steps, batch_size=batch_size)), first
    )
  # Of a part of the split, and read alone, the same.
  part = split.part(5, 12)
  rows = batches(part, 7, batch_size=1)
  for batch in rows:
    np.testing.assert_array_equal(batch["image"][0], first[batch["label"][0]])
  assert sorted(labels(rows).ravel()) == list(range(5, 12))
  for changed in (
    by_label(batches(split, 4, start_step=4)),
    by_label(batches(split, 4, seed=4)),
  ):
    assert not np.any(np.all(changed == first, (1, 2, 3)))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
@pytest.mark.parametrize("channels", [1, 3])
def test_crops_are_pillows(photo, encode, file_format, channels):
  tf = import_tensorflow()
  pixels = photo(120, 150)[..., :channels]
  encoded = encode(pixels, file_format)
  image = Image.open(io.BytesIO(encoded))
  flips, differences = [], []
  for i in range(12):
    draws = tf.constant(np.random.RandomState(i).random_sample(41))
    crop = data.RandomResizedCrop(size=40)
    box, flip = _crops.random_box(
      crop, tf.constant(120), tf.constant(150), draws
    )
    top, left, height, width = (int(side) for side in box)
    expected = image.crop((left, top, left + width, top + height)).resize(
      (40, 40), Image.Resampling.BILINEAR
    )
    expected = np.asarray(expected, np.float32).reshape(40, 40, channels)
    flips.append(bool(flip))
    if flip:
      expected = expected[:, ::-1]
    found = _decode.training_image(
      tf.constant(encoded), crop, draws, channels=channels
    ).numpy()
    assert np.all(found == np.rint(found))
    differences.append(np.abs(found - expected).mean())
    unflipped = _decode.training_image(
      tf.constant(encoded),
      data.RandomResizedCrop(size=40, flip=False),
      draws,
      channels=channels,
    ).numpy()
    np.testing.assert_array_equal(
      unflipped[:, ::-1] if flip else unflipped, found
    )
  assert len(set(flips)) == 2
  # Of a JPEG's crop, the colours at the border differ: they are interpolated
  # without the neighbours outside.
  assert np.mean(differences) < (0.4 if file_format == "JPEG" else 0.03)


@pytest.mark.parametrize("channels", [1, 3])
def test_fast_crops_are_those_of_the_exact_way(photo, encode, channels):
  tf = import_tensorflow()
  encoded = tf.constant(encode(photo(347, 403)[..., :channels]))
  scaled = 0
  for i in range(12):
    draws = tf.constant(np.random.RandomState(i).random_sample(41))
    crop = data.RandomResizedCrop(size=80)
    box, _ = _crops.random_box(crop, tf.constant(347), tf.constant(403), draws)
    exact, found = (
      _decode.training_image(
        encoded, crop, draws, channels=channels, fast=fast
      ).numpy()
      for fast in (False, True)
    )
    off = np.abs(found - exact).mean()
    fast = min(int(box.height), int(box.width)) >= 160
    scaled += fast
    assert (off > 0) == fast
    moved = np.abs(np.roll(exact, 1, 1) - exact)[:, 1:].mean()
    assert off < moved / 3
  assert 0 < scaled < 12


def test_fast_decoding_takes_the_smallest_scale_that_is_enough():
  tf = import_tensorflow()
  for side, ratio in ((9, 1), (19, 1), (20, 2), (40, 4), (79, 4), (80, 8)):
    (found,) = _decode._at_scale(
      lambda ratio: (tf.constant(ratio),), tf.constant(side), 10, True
    )
    assert int(found) == ratio


def test_fast_decoding_is_an_option_of_streams(numbered_set):
  directory = numbered_set(N, shape=(40, 44))  # twice a crop of 8, and more
  exact, fast = (
    batches(source(directory, fast_decode=on), 1) for on in (False, True)
  )
  np.testing.assert_array_equal(labels(exact), labels(fast))
  off = np.abs(exact[0]["image"] - fast[0]["image"]).mean()
  assert 0 < off < 0.1


def test_normalisation(numbered_set):
  directory = numbered_set(N)
  mean, std = (0.25, 0.5, 0.1), (0.5, 2.0, 1.0)
  [plain] = batches(source(directory), 1)
  [batch] = batches(source(directory, mean=mean, std=std), 1)
  assert (batch["image"].dtype, batch["label"].dtype) == (np.float32, np.int32)
  assert batch["image"].shape == (6, 8, 8, 3)
  np.testing.assert_allclose(
    batch["image"], (plain["image"] - mean) / std, rtol=1e-5, atol=1e-6
  )
  assert plain["image"].max() > 0.5


def test_a_short_file_is_an_error(numbered_set):
  directory = numbered_set(24, num_shards=2)
  files = sorted((directory / "tiny" / "1.0.0").glob("*train.tfrecord*"))
  tf = import_tensorflow()
  records = list(tf.data.TFRecordDataset(str(files[0])).as_numpy_iterator())
  with tf.io.TFRecordWriter(str(files[0])) as writer:
    for record in records[:-1]:
      writer.write(record)
  with pytest.raises(DataError, match=r"record 11 of .*\n  the file ends"):
    batches(source(directory), 4)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"batch_size": 24}, "batch_size=24 .* 23"),
    ({"batch_size": 0}, "batch_size=0"),
    ({"start_step": -1}, "start_step=-1"),
    ({"seed": -1}, "seed=-1"),
    ({"shard": (2, 2)}, "shard="),
    ({"shard": (0, 4)}, "count must divide batch_size=6"),
    ({"shard": (0, 3)}, "3 processes cannot share .* must divide 2"),
  ],
)
def test_impossible_arguments(split, options, message):
  with pytest.raises(ValueError, match=message):
    batches(split, 1, **options)


@pytest.mark.parametrize("options", [{"threads": 0}, {"shuffle_buffer": 0}])
def test_impossible_options(options):
  [(name, value)] = options.items()
  with pytest.raises(ValueError, match=f"{name}={value}"):
    data.StreamOptions(mean=0.0, std=1.0, **options)


def test_lanes_are_for_every_number_of_processes_that_divides_a_batch_and_16():
  for size in range(1, 8193):
    lanes = num_lanes(size)
    assert size % lanes == 0, size
    assert lanes % math.gcd(size, 16) == 0, size
    assert lanes <= max(16, min(size // 8, 512)), size
  sizes = (64, 300, 1000, 1024, 4096)
  assert [num_lanes(size) for size in sizes] == [16, 4, 8, 128, 512]
