"""The sets with a known bias: places, patches, splits and what is missing."""

import hashlib

import numpy as np
import pytest

from forgetsam import data
from forgetsam.data import biased

TESTS = ("test", "test_agree", "test_random", "test_conflict")


@pytest.fixture(scope="session")
def biased_dir(tmp_path_factory):
  directory = tmp_path_factory.mktemp("biased")
  data.load("biased_digits", data_dir=directory)
  return directory


@pytest.fixture(scope="session")
def stored(biased_dir):
  """Every split as the files have it, place included."""
  import tensorflow_datasets as tfds

  loaded = tfds.load("biased_digits", data_dir=biased_dir, batch_size=-1)
  return {name: tfds.as_numpy(split) for name, split in loaded.items()}


def slow_paste(image, place):
  """One 8x8 digit; places 0 to 4 go down the left edge, 5 to 9 the right."""
  rows = [0, 1, 3, 5, 7]
  image = image.copy()
  image[rows[place % 5], 0 if place < 5 else 7] = 255
  return image


def test_images_are_the_digits_with_one_pixel_at_the_place(biased_dir, stored):
  real = data.load("digits", data_dir=biased_dir)
  for name, split in stored.items():
    source = real.train if name == "train" else real.test
    np.testing.assert_array_equal(split["label"], source.labels)
    expected = [
      slow_paste(image, place)
      for image, place in zip(source.images, split["place"], strict=True)
    ]
    np.testing.assert_array_equal(split["image"], expected)


def test_places_agree_as_often_as_the_split_says(stored):
  def agreement(split):
    return np.mean(stored[split]["place"] == stored[split]["label"])

  assert agreement("train") == round(0.95 * 1437) / 1437
  assert agreement("test") == 342 / 360
  assert agreement("test_agree") == 1
  assert agreement("test_conflict") == 0
  assert agreement("test_random") == 36 / 360


def test_random_places_do_not_depend_on_the_label():
  labels = np.repeat(np.arange(10), 2000)
  places = biased.draw_places(labels, agree=0.1, num_places=10, seed=3)
  table = np.histogram2d(labels, places, bins=10)[0]
  # Binomial counts around 200 with a deviation of 13: within five of them.
  assert np.all(np.abs(table - 200) < 67)


def test_conflicting_places_take_each_other_class_as_often():
  labels = np.repeat(np.arange(10), 1800)
  places = biased.draw_places(labels, agree=0.0, num_places=10, seed=3)
  table = np.histogram2d(labels, places, bins=10)[0]
  assert np.all(np.diag(table) == 0)
  others = table[~np.eye(10, dtype=bool)]
  assert np.all(np.abs(others - 200) < 67)


def test_a_smaller_fraction_is_part_of_a_larger_one():
  labels = np.arange(500) % 10
  weak, strong = (
    biased.draw_places(labels, agree=q, num_places=10, seed=0) == labels
    for q in (0.8, 0.95)
  )
  assert (weak.sum(), strong.sum()) == (400, 475)
  assert np.all(strong[weak])


def test_splits_and_seeds_draw_their_own_places(stored):
  conflict, random = (stored[s]["place"] for s in TESTS[:1:-1])
  # Apart from chance, one place in ten is the same.
  assert np.mean(conflict == random) < 0.2
  labels = np.zeros(400, np.int64)
  first, again, other = (
    biased.draw_places(labels, agree=0.0, num_places=10, seed=seed)
    for seed in (0, 0, 1)
  )
  np.testing.assert_array_equal(first, again)
  assert np.mean(first == other) < 0.2


def test_places_are_fixed(stored):
  places = np.concatenate([stored[s]["place"] for s in ("train", *TESTS)])
  digest = hashlib.sha256(places.astype("<i8").tobytes()).hexdigest()
  assert digest == (
    "d7298371842c068c4096ce08aa8afac3fa34dc911d4d54c1ad14d20210a44987"
  )


def test_load_reads_what_is_stored(biased_dir, stored):
  loaded = data.load("biased_digits", data_dir=biased_dir, validation=0.1)
  held_out, train = loaded.validation, loaded.train
  assert (len(held_out), len(train)) == (144, 1293)
  np.testing.assert_array_equal(
    train.images, stored["train"]["image"][train.ids]
  )
  for name in TESTS:
    split = data.load_split("biased_digits", name, data_dir=biased_dir)
    np.testing.assert_array_equal(split.images, stored[name]["image"])
    np.testing.assert_array_equal(split.labels, stored[name]["label"])


def test_stream_reads_the_extra_splits(biased_dir, stored):
  crop = data.CenterCrop(size=8, short_side=None)
  options = data.StreamOptions(
    train_crop=data.RandomResizedCrop(size=8),
    eval_crop=crop,
    mean=0.0,
    std=1.0,
  )
  split = data.stream_split(
    "biased_digits", "test_conflict", options, data_dir=biased_dir
  )
  (batch,) = split.eval_batches(batch_size=360)
  np.testing.assert_allclose(
    batch["image"], stored["test_conflict"]["image"] / 255.0, atol=1e-6
  )


def test_the_control_says_nothing(biased_dir):
  import tensorflow_datasets as tfds

  data.check_available("biased_digits/q10", data_dir=biased_dir)
  data.load("biased_digits/q10", data_dir=biased_dir)
  train = tfds.load(
    "biased_digits/q10", split="train", data_dir=biased_dir, batch_size=-1
  )
  assert np.mean(train["place"] == train["label"]) == 144 / 1437


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("biased_digits/q50", "has q95, q80, q10"),
    ("biased_digits/q95:2.0.0", "have one version, 1.0.0"),
    ("digits/q95", "has no configurations"),
  ],
)
def test_other_configurations_do_not_exist(name, message, biased_dir):
  with pytest.raises(data.DatasetNotFoundError, match=message):
    data.load(name, data_dir=biased_dir)


@pytest.mark.parametrize("call", [data.check_available, data.load])
def test_fashion_needs_fashion_mnist(call, tmp_path, default_dirs):
  with pytest.raises(data.DatasetNotFoundError) as error:
    call("biased_fashion", data_dir=tmp_path)
  message = str(error.value)
  assert "'biased_fashion' is made of 'fashion_mnist'" in message
  assert str(tmp_path) in message
  assert "`tfds build fashion_mnist`" in message
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("beside", [True, False])
def test_fashion_is_made_of_what_is_prepared(
  beside, make_set, tmp_path, monkeypatch, default_dirs
):
  import tensorflow_datasets as tfds

  rng = np.random.RandomState(0)
  rows = [
    {"image": rng.randint(0, 256, (28, 28, 1)).astype(np.uint8), "label": i}
    for i in range(10)
  ]
  features = {
    "image": tfds.features.Image(shape=(28, 28, 1)),
    "label": tfds.features.ClassLabel(num_classes=10),
  }
  made = make_set(features, {"train": rows, "test": rows}, name="fashion_mnist")
  if not beside:  # in TFDS's default directory, and another one is asked for
    default_dirs[0].mkdir()
    (made / "fashion_mnist").rename(default_dirs[0] / "fashion_mnist")
  loaded = data.load_split(
    "biased_fashion", "test_agree", data_dir=made if beside else made / "other"
  )
  changed = loaded.images != np.stack([row["image"] for row in rows])
  for label, where in enumerate(changed[..., 0]):
    row, column = divmod(label, 5)[::-1]
    top, left = [0, 6, 13, 19, 26][row], 26 * column
    outside = where.copy()
    outside[top : top + 2, left : left + 2] = False
    assert not outside.any()
    patch = loaded.images[label, top : top + 2, left : left + 2]
    assert np.all(patch == 255)


def test_unknown_split(biased_dir):
  with pytest.raises(ValueError, match=r"no split 'test_bias'.*_conflict"):
    data.load_split("biased_digits", "test_bias", data_dir=biased_dir)


def test_refusals():
  with pytest.raises(ValueError, match=r"agree=1\.2 must be in \[0, 1\]"):
    biased.draw_places(np.arange(3), agree=1.2, num_places=10, seed=0)
  with pytest.raises(ValueError, match="num_places=7 must be even"):
    biased.corners((8, 8, 1), size=1, num_places=7)
  with pytest.raises(ValueError, match=r"size=2 must be .* let 5 patches fit"):
    biased.corners((8, 8, 1), size=2, num_places=10)
  with pytest.raises(ValueError, match="size=0 must be"):
    biased.corners((8, 8, 1), size=0, num_places=10)
