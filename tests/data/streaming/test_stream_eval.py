"""Streamed evaluation: every example once, with Pillow's pixels."""

import io

import numpy as np
import pytest
from PIL import Image

from forgetsam import data
from forgetsam.data import import_tensorflow
from forgetsam.data.streaming import _decode

N = 11
CROP = data.CenterCrop(size=8, short_side=10)


def source(directory, split="test", **options):
  defaults = {"mean": 0.0, "std": 1.0, "eval_crop": CROP, "threads": 2}
  return data.stream_split(
    "tiny",
    split,
    data.StreamOptions(**(defaults | options)),
    data_dir=directory,
  )


@pytest.mark.parametrize("batch_size", [1, 4, 11, 20])
def test_every_example_once_in_order(numbered_set, batch_size):
  split = source(numbered_set(N, num_shards=3))
  batches = list(split.eval_batches(batch_size=batch_size))
  assert len(split) == N
  assert len(batches) == -(-N // batch_size)
  joined = {
    key: np.concatenate([b[key] for b in batches]) for key in batches[0]
  }
  assert {key: array.dtype for key, array in joined.items()} == {
    "image": np.float32,
    "label": np.int32,
    "mask": np.float32,
  }
  rows = len(joined["mask"])
  assert joined["image"].shape == (rows, 8, 8, 3)
  np.testing.assert_array_equal(joined["label"][:N], np.arange(N))
  np.testing.assert_array_equal(joined["mask"], np.arange(rows) < N)
  assert not joined["image"][N:].any()
  assert not joined["label"][N:].any()


# Of 2 examples, 3 shards: one has none. Of 11 in 4: 2, 3, 3 and 3.
@pytest.mark.parametrize(("count", "shards"), [(11, 2), (11, 4), (2, 3)])
def test_shards_hold_every_example_once(numbered_set, count, shards):
  split = source(numbered_set(count))
  [whole] = split.eval_batches(batch_size=count)
  parts = [
    list(split.eval_batches(batch_size=2 * shards, shard=(i, shards)))
    for i in range(shards)
  ]
  # All go through their steps together.
  assert len({len(part) for part in parts}) == 1
  batches = [batch for part in parts for batch in part]
  assert {len(batch["image"]) for batch in batches} == {2}
  counts = np.concatenate([batch["mask"] for batch in batches]) == 1
  for key in ("image", "label"):
    rows = np.concatenate([batch[key] for batch in batches])
    np.testing.assert_array_equal(rows[counts], whole[key])
    assert not rows[~counts].any()


def test_part_of_a_split(numbered_set):
  split = source(numbered_set(N, num_shards=3), "train[3:9]")
  assert len(split) == 6
  [batch] = split.eval_batches(batch_size=6)
  np.testing.assert_array_equal(batch["label"], [3, 4, 5, 6, 7, 8])
  [part] = split.part(1, 4).eval_batches(batch_size=3)
  np.testing.assert_array_equal(part["label"], [4, 5, 6])
  np.testing.assert_array_equal(part["image"], batch["image"][1:4])


def test_normalisation(numbered_set):
  directory = numbered_set(N)
  mean, std = (0.25, 0.5, 0.1), (0.5, 2.0, 1.0)
  [plain] = source(directory).eval_batches(batch_size=N)
  [batch] = source(directory, mean=mean, std=std).eval_batches(batch_size=N)
  np.testing.assert_allclose(
    batch["image"], (plain["image"] - mean) / std, rtol=1e-5, atol=1e-6
  )


def pillow(encoded, crop):
  """Resize of the shorter side and middle crop, as torchvision does."""
  image = Image.open(io.BytesIO(encoded)).convert("RGB")
  short = min(image.size)
  resized = [int(crop.short_side * side / short) for side in image.size]
  left, top = (round((side - crop.size) / 2) for side in resized)
  image = image.resize(resized, Image.Resampling[crop.method.upper()])
  image = image.crop((left, top, left + crop.size, top + crop.size))
  return np.asarray(image, np.float32)


# Of 500x375, 329 is the shorter side of 438: both margins have a half pixel.
@pytest.mark.parametrize(
  "crop",
  [
    data.CenterCrop(224, 256, "bicubic"),
    data.CenterCrop(224, 256, "bilinear"),
    data.CenterCrop(288, 329, "bicubic"),
  ],
)
@pytest.mark.parametrize("shape", [(375, 500), (641, 480), (100, 130)])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_pixels_are_pillows(photo, encode, crop, shape, file_format):
  tf = import_tensorflow()
  encoded = encode(photo(*shape), file_format)
  found = _decode.evaluation_image(tf.constant(encoded), crop, channels=3)
  difference = np.abs(found.numpy() - pillow(encoded, crop))
  # Pillow calculates in fixed point.
  assert difference.mean() < 0.01
  assert difference.max() <= 3
  assert np.all(found.numpy() == np.rint(found.numpy()))


# 700 of 900: at a half, 330 of short side; of odd sides, at a quarter, 85.
@pytest.mark.parametrize(
  ("crop", "shape", "fast"),
  [
    (data.CenterCrop(224, 330, "bicubic"), (700, 900), True),
    (data.CenterCrop(64, 80, "bilinear"), (341, 403), True),
    (data.CenterCrop(64, 80), (159, 200), False),
  ],
)
def test_fast_decoding_stays_in_place(photo, encode, crop, shape, fast):
  tf = import_tensorflow()
  for file_format in ("JPEG", "PNG"):
    encoded = tf.constant(encode(photo(*shape), file_format))
    exact, found = (
      _decode.evaluation_image(encoded, crop, channels=3, fast=on).numpy()
      for on in (False, True)
    )
    off = np.abs(found - exact).mean()
    assert (off > 0) == (fast and file_format == "JPEG")
    for axis in (0, 1):
      for shift in (-1, 1):  # a pixel's shift is an eighth of what is off
        moved = np.abs(np.roll(exact, shift, axis) - exact)[1:-1, 1:-1].mean()
        assert off < moved / 4


def test_images_as_they_are(photo, encode):
  tf = import_tensorflow()
  pixels = photo(21, 17)
  crop = data.CenterCrop(size=8, short_side=None)
  found = _decode.evaluation_image(
    tf.constant(encode(pixels, "PNG")), crop, channels=3
  )
  np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_grey_images_become_rgb(photo, encode, file_format):
  tf = import_tensorflow()
  encoded = encode(photo(40, 50)[..., :1], file_format)
  crop = data.CenterCrop(size=30, short_side=40)
  found = _decode.evaluation_image(tf.constant(encoded), crop, channels=3)
  assert np.abs(found.numpy() - pillow(encoded, crop)).max() <= 1


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"batch_size": 0}, "batch_size=0"),
    ({"batch_size": 4, "shard": (0, 3)}, "count must divide batch_size=4"),
    ({"batch_size": 4, "shard": (4, 4)}, "shard="),
  ],
)
def test_impossible_arguments(numbered_set, options, message):
  split = source(numbered_set(2))
  with pytest.raises(ValueError, match=message):
    split.eval_batches(**options)
