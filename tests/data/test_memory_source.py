"""In memory or streamed, jobs see the same kind of source."""

import numpy as np
import pytest

from forgetsam import data


@pytest.fixture
def images(numbered_split):
  return data.ImageData(
    name="tiny",
    num_classes=30,
    image_shape=(6, 5, 2),
    train=numbered_split(23),
    validation=None,
    test=numbered_split(11, seed=1),
  )


def test_in_memory_sources_give_the_functions_batches(images):
  preprocessing = {"mean": 0.1, "std": (0.5, 0.6)}
  augmentation = {"flip": True, "crop_padding": 1}
  sources = data.in_memory(images, **preprocessing, **augmentation)
  assert isinstance(sources.train, data.BatchSource)
  assert (sources.name, sources.num_classes) == ("tiny", 30)
  assert (sources.image_shape, sources.validation) == ((6, 5, 2), None)
  assert (len(sources.train), len(sources.test)) == (23, 11)
  assert not sources.test.multi_label
  assert sources.test.classes is None
  options = {
    "batch_size": 6,
    "seed": 4,
    "start_step": 2,
    "num_steps": 3,
    "shard": (1, 2),
  }
  pairs = [
    (
      sources.train.train_batches(**options),
      data.train_batches(
        images.train, **options, **preprocessing, **augmentation
      ),
    ),
    (
      sources.test.eval_batches(batch_size=4),
      data.eval_batches(images.test, batch_size=4, **preprocessing),
    ),
  ]
  for found, expected in pairs:
    for left, right in zip(found, expected, strict=True):
      assert left.keys() == right.keys()
      for key, value in right.items():
        np.testing.assert_array_equal(left[key], value)


def test_validation_is_passed_on(images, numbered_split):
  import dataclasses

  images = dataclasses.replace(images, validation=numbered_split(3))
  assert len(data.in_memory(images, mean=0.0, std=1.0).validation) == 3


@pytest.mark.parametrize(("batch_size", "shards"), [(2, 2), (8, 4), (24, 12)])
def test_evaluation_shards_hold_every_example_once(images, batch_size, shards):
  test = data.in_memory(images, mean=0.0, std=1.0).test
  parts = [
    list(test.eval_batches(batch_size=batch_size, shard=(i, shards)))
    for i in range(shards)
  ]
  assert len({len(part) for part in parts}) == 1
  batches = [batch for part in parts for batch in part]
  assert {len(batch["image"]) for batch in batches} == {batch_size // shards}
  counts = np.concatenate([batch["mask"] for batch in batches]) == 1
  labels = np.concatenate([batch["label"] for batch in batches])
  np.testing.assert_array_equal(labels[counts], np.arange(11))
  assert not labels[~counts].any()


@pytest.mark.parametrize(
  "options", [{"batch_size": 0}, {"batch_size": 4, "shard": (0, 3)}]
)
def test_impossible_arguments(images, options):
  test = data.in_memory(images, mean=0.0, std=1.0).test
  with pytest.raises(ValueError, match="batch_size="):
    test.eval_batches(**options)
