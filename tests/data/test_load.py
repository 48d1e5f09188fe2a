"""`load` decodes, holds out, keeps and mislabels."""

import numpy as np
import pytest

from forgetsam import data

IMAGE_SHAPE = (4, 3, 3)


@pytest.fixture
def features():
  import tensorflow_datasets as tfds

  return {
    "image": tfds.features.Image(shape=IMAGE_SHAPE),
    "label": tfds.features.ClassLabel(num_classes=3),
    "id": tfds.features.Text(),
  }


def examples(count, seed=0):
  rng = np.random.RandomState(seed)
  return [
    {
      "image": rng.randint(0, 256, IMAGE_SHAPE).astype(np.uint8),
      "label": int(rng.randint(3)),
      "id": f"example {i}",
    }
    for i in range(count)
  ]


def test_decodes_every_example_in_the_order_of_the_files(make_set, features):
  source = {"train": examples(1100), "test": examples(7, seed=1)}
  directory = make_set(features, source, num_shards=3)
  assert len(list(directory.glob("tiny/1.0.0/tiny-train*-of-00003"))) == 3
  loaded = data.load("tiny", data_dir=directory)
  assert (loaded.name, loaded.num_classes) == ("tiny", 3)
  assert loaded.image_shape == IMAGE_SHAPE
  assert loaded.validation is None
  for name, rows in source.items():
    split = getattr(loaded, name)
    np.testing.assert_array_equal(split.images, [r["image"] for r in rows])
    np.testing.assert_array_equal(split.labels, [r["label"] for r in rows])
    np.testing.assert_array_equal(split.ids, np.arange(len(rows)))
    assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)


def test_fashion_mnist():
  try:
    data.check_available("fashion_mnist")
  except data.DatasetNotFoundError as error:
    pytest.skip(str(error).splitlines()[0])
  loaded = data.load("fashion_mnist", validation=0.1)
  assert loaded.image_shape == (28, 28, 1)
  assert (len(loaded.train), len(loaded.validation)) == (54000, 6000)
  np.testing.assert_array_equal(np.bincount(loaded.test.labels), [1000] * 10)
  np.testing.assert_array_equal(
    np.bincount(loaded.validation.labels), [600] * 10
  )


def test_missing_split(make_set, features):
  directory = make_set(features, {"train": examples(3), "dev": examples(3)})
  with pytest.raises(
    ValueError, match=r"no split test; .* (train, dev|dev, train)"
  ):
    data.load("tiny", data_dir=directory)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda f: {"pixels": f["image"], "label": f["label"]}, "feature 'image'"),
    (lambda f: {"image": f["image"], "label": np.int64}, "feature 'label'"),
  ],
)
def test_other_features(make_set, features, change, message):
  changed = change(features)
  row = {"label": 1, next(iter(changed)): examples(1)[0]["image"]}
  directory = make_set(changed, {"train": [row], "test": [row]})
  with pytest.raises(ValueError, match=message):
    data.load("tiny", data_dir=directory)


def test_images_of_several_shapes(make_set, features):
  import tensorflow_datasets as tfds

  features["image"] = tfds.features.Image(shape=(None, None, 3))
  directory = make_set(features, {"train": examples(3), "test": examples(3)})
  with pytest.raises(ValueError, match="of one shape"):
    data.load("tiny", data_dir=directory)


def test_unlabelled_examples(make_set, features):
  unlabelled = [{**row, "label": -1} for row in examples(3)]
  directory = make_set(features, {"train": examples(3), "test": unlabelled})
  with pytest.raises(ValueError, match="example 0 is without a label"):
    data.load("tiny", data_dir=directory)


@pytest.fixture
def load(digits_dir):
  return lambda **options: data.load("digits", data_dir=digits_dir, **options)


def assert_same(left, right):
  np.testing.assert_array_equal(left.ids, right.ids)
  np.testing.assert_array_equal(left.images, right.images)
  np.testing.assert_array_equal(left.labels, right.labels)


def test_validation_is_a_stratified_part_of_train(load):
  whole, parts = load(), load(validation=0.1)
  assert (len(parts.validation), len(parts.train)) == (144, 1293)
  both = np.concatenate([parts.train.ids, parts.validation.ids])
  np.testing.assert_array_equal(np.sort(both), np.arange(1437))
  for split in (parts.train, parts.validation):
    assert_same(split, whole.train.take(split.ids))
    share = np.bincount(whole.train.labels) * len(split) / 1437
    assert np.all(np.abs(np.bincount(split.labels) - share) < 1)
  assert_same(parts.test, whole.test)


def test_validation_depends_on_nothing_but_its_seed(load):
  first = load(validation=0.1)
  other = load(validation=0.1, label_noise=0.5, train_examples=300)
  assert_same(other.validation, first.validation)
  assert_same(other.test, first.test)
  reseeded = load(validation=0.1, split_seed=1)
  assert len(np.intersect1d(reseeded.validation.ids, first.validation.ids)) < 50


def test_train_examples_is_a_stratified_part_of_the_rest(load):
  parts = load(validation=0.1)
  small, smaller = (load(validation=0.1, train_examples=n) for n in (300, 100))
  assert len(small.train) == 300
  assert_same(
    small.train,
    parts.train.take(np.searchsorted(parts.train.ids, small.train.ids)),
  )
  share = np.bincount(parts.train.labels) * 300 / len(parts.train)
  assert np.all(np.abs(np.bincount(small.train.labels) - share) < 1)
  assert np.isin(smaller.train.ids, small.train.ids).all()
  everything = load(validation=0.1, train_examples=1293)
  assert_same(everything.train, parts.train)


def test_what_validation_takes_hardly_changes_the_rest(load):
  without = load(train_examples=300, label_noise=1.0).train
  with_it = load(validation=0.1, train_examples=300, label_noise=1.0).train
  both, left, right = np.intersect1d(
    without.ids, with_it.ids, return_indices=True
  )
  # A tenth of the 300 are held out; others take their place.
  assert len(both) > 250
  np.testing.assert_array_equal(without.labels[left], with_it.labels[right])


@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.37, 1.0])
def test_label_noise_flips_exactly_its_share(load, fraction):
  clean = load(validation=0.1, train_examples=1000)
  noisy = load(validation=0.1, train_examples=1000, label_noise=fraction)
  np.testing.assert_array_equal(noisy.train.ids, clean.train.ids)
  np.testing.assert_array_equal(noisy.train.images, clean.train.images)
  changed = noisy.train.labels != clean.train.labels
  assert changed.sum() == round(fraction * 1000)
  assert set(np.unique(noisy.train.labels)) <= set(range(10))
  assert noisy.train.labels.dtype == np.int32
  assert_same(noisy.validation, clean.validation)
  assert_same(noisy.test, clean.test)
  again = load(validation=0.1, train_examples=1000, label_noise=fraction)
  assert_same(again.train, noisy.train)


def test_label_noise_is_uniform_over_the_other_classes(load):
  clean, noisy = load(), load(label_noise=1.0)
  shifts = np.bincount(
    (noisy.train.labels - clean.train.labels) % 10, minlength=10
  )
  assert shifts[0] == 0
  # 1437 / 9 = 160 each; the standard deviation is 12.
  assert np.all(np.abs(shifts[1:] - 1437 / 9) < 48)
  reseeded = load(label_noise=1.0, split_seed=1)
  assert np.any(reseeded.train.labels != noisy.train.labels)


def test_more_noise_keeps_the_earlier_flips(load):
  clean, some, more = (load(label_noise=f) for f in (0.0, 0.1, 0.3))
  flipped = some.train.labels != clean.train.labels
  np.testing.assert_array_equal(
    more.train.labels[flipped], some.train.labels[flipped]
  )
  # Chosen at random, not the first ones.
  assert np.flatnonzero(flipped).max() > 1200


@pytest.mark.parametrize(
  "options",
  [
    {"validation": -0.1},
    {"validation": 1.0},
    {"validation": float("nan")},
    {"validation": 1e-6},
    {"validation": 0.9999},
    {"label_noise": 1.1},
    {"label_noise": float("nan")},
    {"train_examples": 0},
    {"train_examples": 1438},
    {"split_seed": -1},
  ],
)
def test_impossible_choices(load, options):
  [(name, value)] = options.items()
  with pytest.raises(ValueError, match=f"{name}={value}"):
    load(**options)


def test_held_out_examples_can_have_wrong_labels_too(load):
  images = load(validation=0.2, label_noise=0.3)
  noisy = data.mislabel(images.validation, 0.3, num_classes=10, seed=0)
  changed = noisy.labels != images.validation.labels
  assert changed.sum() == round(0.3 * len(noisy))
  assert noisy.images is images.validation.images
  clean = load(validation=0.2).train
  np.testing.assert_array_equal(
    data.mislabel(clean, 0.3, num_classes=10, seed=0).labels,
    images.train.labels,
  )
  with pytest.raises(ValueError, match=r"label_noise=1\.5"):
    data.mislabel(clean, 1.5, num_classes=10, seed=0)
