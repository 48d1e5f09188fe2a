"""A set's identity: its name, version, and what its examples are."""

import dataclasses

import numpy as np
import pytest

from forgetsam import data
from forgetsam.data.files import pixels_fingerprint

OPTIONS = data.StreamOptions(mean=0.5, std=0.5, eval_crop=data.CenterCrop(8, 8))


def identity(directory, name="tiny"):
  found = data.stream_split(name, "train", OPTIONS, data_dir=directory)
  return found.identity


def test_sets_in_memory_are_known_by_pixels_and_labels(digits_dir):
  loaded = data.load("digits", data_dir=digits_dir, validation=0.2)
  assert loaded.identity.name == "digits:1.0.0"
  assert {n: s["examples"] for n, s in loaded.identity.splits.items()} == {
    "train": 1437,
    "test": 360,
  }
  other = data.load("digits", data_dir=digits_dir, label_noise=0.5)
  assert other.identity == loaded.identity  # it is the set's, not the run's
  split, seen = loaded.test, set()
  for images, labels in [
    (split.images, split.labels),
    (255 - split.images, split.labels),
    (split.images, np.roll(split.labels, 1)),
    (split.images[:-1], split.labels[:-1]),
  ]:
    one = dataclasses.replace(
      split, images=images, labels=labels, ids=split.ids[: len(labels)]
    )
    seen.add(pixels_fingerprint(one)["pixels_sha256"])
  assert len(seen) == 4


def rows(photo, encode, *, labels=range(6), seed=0):
  return [
    {"image": encode(photo(12, 14, seed=seed + i), "PNG"), "label": label}
    for i, label in enumerate(labels)
  ]


@pytest.mark.parametrize("whole_bytes", [2**25, 0])
def test_streamed_sets_are_known_by_their_examples(
  whole_bytes, make_set, photo, encode, monkeypatch
):
  """Of large splits some are read: here of each of three files the first."""
  import tensorflow_datasets as tfds

  monkeypatch.setattr(
    "forgetsam.data.files._fingerprints._WHOLE_BYTES", whole_bytes
  )
  monkeypatch.setattr("forgetsam.data.files._fingerprints._EXAMPLES", 3)
  features = {
    "image": tfds.features.Image(shape=(None, None, 3)),
    "label": tfds.features.ClassLabel(num_classes=6),
  }
  found = []
  for i, split in enumerate(
    [
      rows(photo, encode),
      rows(photo, encode, labels=[1, 1, 2, 3, 4, 5]),
      rows(photo, encode, labels=[0, 0, 2, 3, 4, 5]),
      rows(photo, encode, seed=7),
    ]
  ):
    name = f"tiny{i}"
    directory = make_set(
      features, {"train": split, "test": split}, num_shards=3, name=name
    )
    found.append(identity(directory, name))
  assert found[0].name == "tiny0:1.0.0"
  first, *others = (one.splits["train"]["files_sha256"] for one in found)
  assert identity(directory, "tiny0") == found[0]
  assert [first == other for other in others] == [
    False,
    whole_bytes == 0,  # the second of a file goes unread
    False,
  ]


def test_a_split_that_cannot_be_read_has_no_fingerprint(numbered_set):
  directory = numbered_set(4)
  [file] = directory.glob("tiny/1.0.0/tiny-train*")
  content = bytearray(file.read_bytes())
  content[40] ^= 255
  file.write_bytes(content)
  assert identity(directory).splits["train"] == {
    "examples": 4,
    "files_sha256": None,
  }
