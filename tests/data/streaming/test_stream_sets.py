"""Each set's labels, splits and classes, on small sets of the same features."""

import importlib

import numpy as np
import pytest

from forgetsam import data

pytestmark = pytest.mark.slow

CROP = data.CenterCrop(size=16, short_side=18)
OPTIONS = data.StreamOptions(
  mean=0.0,
  std=1.0,
  train_crop=data.RandomResizedCrop(size=16),
  eval_crop=CROP,
  threads=2,
)


@pytest.fixture
def make_real(make_set, photo, encode, tmp_path):
  """A small set with the name and the features that TFDS gives the real one."""
  import tensorflow_datasets as tfds

  def make(name, splits, *, label="label", config=None):
    builder = tfds.builder_cls(name)(
      data_dir=tmp_path / "unused", **({"config": config} if config else {})
    )
    features = dict(builder.info.features.items())
    height, width, channels = features["image"].shape

    def row(i, value):
      pixels = photo(height or 20, width or 24 + i, seed=i)[..., :channels]
      encoding = (
        "JPEG" if features["image"].encoding_format == "jpeg" else "PNG"
      )
      fields = {"image": encode(pixels, encoding), label: value}
      # What the adapters have no use for must not disturb them.
      fillers = {
        "file_name": f"{i}.JPEG",
        "id": str(i),
        "coarse_label": 0,
        "original_label": 0,
      }
      return {
        field: fields.get(field, fillers.get(field)) for field in features
      }

    return make_set(
      features,
      {
        split: [row(i, value) for i, value in enumerate(values)]
        for split, values in splits.items()
      },
      name=name,
      config=config,
    )

  return make


def all_rows(source):
  """Every row that is no padding, and how many were read."""
  batches = list(source.eval_batches(batch_size=4))
  rows = {key: np.concatenate([b[key] for b in batches]) for key in batches[0]}
  return {key: array[: len(source)] for key, array in rows.items()}


# Splits and number of classes, written down from the sets' own pages.
@pytest.mark.parametrize(
  ("name", "train", "test", "classes", "channels"),
  [
    ("imagenet2012", "train", "validation", 1000, 3),
    ("cifar10", "train", "test", 10, 3),
    ("cifar100", "train", "test", 100, 3),
    ("fashion_mnist", "train", "test", 10, 1),
    ("mnist", "train", "test", 10, 1),
  ],
)
def test_sets_to_train_on(make_real, name, train, test, classes, channels):
  values = [0, classes - 1, 3, 5, 1, 7]
  directory = make_real(name, {train: values, test: values[:5]})
  sources = data.stream(name, OPTIONS, data_dir=directory, validation=1 / 3)
  assert (sources.num_classes, sources.image_shape) == (
    classes,
    (16, 16, channels),
  )
  for split, expected in [
    (sources.train, values[:4]),
    (sources.validation, values[4:]),
    (sources.test, values[:5]),
  ]:
    assert isinstance(split, data.BatchSource)
    rows = all_rows(split)
    np.testing.assert_array_equal(rows["label"], expected)
    assert rows["mask"].all()
    assert rows["image"].shape[1:] == (16, 16, channels)
    assert (split.multi_label, split.classes) == (False, None)
  [batch] = sources.train.train_batches(batch_size=4, seed=0, num_steps=1)
  np.testing.assert_array_equal(np.sort(batch["label"]), np.sort(values[:4]))
  view = data.stream_split(name, f"{train}[:3]", OPTIONS, data_dir=directory)
  np.testing.assert_array_equal(all_rows(view)["label"], values[:3])


def test_digits(digits_dir):
  sources = data.stream("digits", OPTIONS, data_dir=digits_dir)
  assert (len(sources.train), len(sources.test)) == (1437, 360)
  assert sources.validation is None
  held = data.load("digits", data_dir=digits_dir)
  as_they_are = data.StreamOptions(
    mean=0.0, std=1.0, eval_crop=data.CenterCrop(8, None)
  )
  streamed = data.stream_split("digits", None, as_they_are, data_dir=digits_dir)
  rows = all_rows(streamed)
  np.testing.assert_array_equal(rows["label"], held.test.labels)
  np.testing.assert_array_equal(np.rint(rows["image"] * 255), held.test.images)


def test_real_has_any_number_of_labels(make_real):
  labels = [[3, 999], [], [7], [0, 1, 2], []]
  directory = make_real(
    "imagenet2012_real", {"validation": labels}, label="real_label"
  )
  sources = data.stream("imagenet2012_real", OPTIONS, data_dir=directory)
  assert sources.train is None
  assert sources.validation is None
  assert sources.test.multi_label
  assert len(sources.test) == 5
  rows = all_rows(sources.test)
  assert rows["label"].shape == (5, 1000)
  assert [list(np.flatnonzero(row)) for row in rows["label"]] == labels
  assert set(np.unique(rows["label"])) == {0.0, 1.0}
  # Images without a label do not count; they are read all the same.
  np.testing.assert_array_equal(rows["mask"], [1, 0, 1, 1, 0])
  assert rows["image"].any(axis=(1, 2, 3)).all()
  # A shard without rows has the labels' shape too.
  *_, last = sources.test.eval_batches(batch_size=8, shard=(0, 8))
  assert last["label"].shape == (1, 1000)


def test_imagenet_r_has_200_of_1000_classes(make_real):
  import tensorflow_datasets as tfds

  # Goldfish, great white shark, hammerhead; a tench is not in it.
  labels = ["n01443537", "n01484850", "n12267677"]
  directory = make_real("imagenet_r", {"test": labels})
  test = data.stream("imagenet_r", OPTIONS, data_dir=directory).test
  np.testing.assert_array_equal(all_rows(test)["label"], [1, 2, 988])
  assert test.num_classes == 1000
  assert (test.classes.dtype, len(np.unique(test.classes))) == (np.int32, 200)
  np.testing.assert_array_equal(test.classes, np.sort(test.classes))
  assert {1, 2, 988} <= set(test.classes)
  assert not {0, 3, 999} & set(test.classes) - {3}
  names = tfds.features.ClassLabel(
    names_file=tfds.core.tfds_path("datasets/imagenet2012/labels.txt")
  )
  assert names.str2int("n01440764") not in test.classes


@pytest.mark.parametrize(
  ("name", "config"),
  [("imagenet_v2", "matched-frequency"), ("imagenet_sketch", None)],
)
def test_other_imagenets(make_real, name, config):
  directory = make_real(name, {"test": [4, 999, 0]}, config=config)
  for asked in {name, f"{name}/{config}" if config else name}:
    sources = data.stream(asked, OPTIONS, data_dir=directory)
    assert sources.train is None
    assert sources.test.classes is None
    np.testing.assert_array_equal(all_rows(sources.test)["label"], [4, 999, 0])


def test_imagenet_v2_in_another_variant(make_real):
  directory = make_real("imagenet_v2", {"test": [4]}, config="topimages")
  name = "imagenet_v2/topimages"
  assert len(data.stream(name, OPTIONS, data_dir=directory).test) == 1
  with pytest.raises(data.DatasetNotFoundError, match="matched-frequency"):
    data.stream("imagenet_v2", OPTIONS, data_dir=directory)


@pytest.mark.parametrize(
  ("name", "split", "config", "shape"),
  [
    ("imagenet2012_corrupted", "validation", "fog_3", (224, 224, 3)),
    ("cifar10_corrupted", "test", "elastic_5", (32, 32, 3)),
  ],
)
def test_corrupted_sets_are_not_resized(make_real, name, split, config, shape):
  directory = make_real(name, {split: [4, 2, 0]}, config=config)
  corruption = config.rsplit("_", 1)[0].replace("elastic", "elastic_transform")
  full = data.corrupted_sets(name)[corruption, int(config[-1])]
  assert full == f"{name}/{config}"
  sources = data.stream(full, OPTIONS, data_dir=directory)
  rows = all_rows(sources.test)
  np.testing.assert_array_equal(rows["label"], [4, 2, 0])
  expected = shape if name.startswith("imagenet") else (16, 16, 3)
  assert rows["image"].shape == (3, *expected)
  assert sources.train is None
  with pytest.raises(ValueError, match="one set for each corruption"):
    data.stream(name, OPTIONS, data_dir=directory)


@pytest.mark.parametrize(
  ("name", "module"),
  [
    (
      "imagenet2012_corrupted",
      "datasets.imagenet2012_corrupted.imagenet2012_corrupted_dataset_builder",
    ),
    ("cifar10_corrupted", "image_classification.cifar10_corrupted"),
  ],
)
def test_the_15_corruptions_at_5_severities(name, module):
  found = data.corrupted_sets(name)
  assert len(found) == len(set(found.values())) == 75
  tfds_names = importlib.import_module(
    f"tensorflow_datasets.{module}"
  ).BENCHMARK_CORRUPTIONS
  assert set(found.values()) == {
    f"{name}/{corruption}_{severity}"
    for corruption in tfds_names
    for severity in range(1, 6)
  }
  with pytest.raises(ValueError, match="name='imagenet2012'"):
    data.corrupted_sets("imagenet2012")


@pytest.mark.parametrize(
  ("name", "files"),
  [
    ("imagenet2012", ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")),
    ("imagenet2012_real", ("ILSVRC2012_img_val.tar",)),
    ("imagenet2012_corrupted/fog_1", ("ILSVRC2012_img_val.tar",)),
  ],
)
def test_sets_to_download_by_hand(name, files, tmp_path):
  with pytest.raises(data.DatasetNotFoundError) as error:
    data.stream(name, OPTIONS, data_dir=tmp_path)
  message = str(error.value)
  assert "is not on this machine" in message
  assert "downloads/manual/" in message
  assert all(file in message for file in files)
  assert ("ILSVRC2012_img_train.tar" in message) == (len(files) == 2)


def test_missing_splits_say_what_to_download(make_real):
  directory = make_real("imagenet2012", {"validation": [1, 2]})
  with pytest.raises(ValueError, match=r"no split 'train'.*_img_train\.tar"):
    data.stream("imagenet2012", OPTIONS, data_dir=directory)
  # Evaluation does without.
  split = data.stream_split("imagenet2012", None, OPTIONS, data_dir=directory)
  assert len(split) == 2


@pytest.mark.parametrize(
  ("split", "message"),
  [
    ("train", "no split 'train'; its splits are test"),
    ("test[5:]", "is empty|cannot be read"),
    ("test[a]", "cannot be read"),
  ],
)
def test_impossible_splits(numbered_set, make_real, split, message):
  directory = make_real("imagenet_sketch", {"test": [1, 2]})
  with pytest.raises(ValueError, match=message):
    data.stream_split("imagenet_sketch", split, OPTIONS, data_dir=directory)


@pytest.mark.parametrize("validation", [-0.1, 1.0, 0.01, float("nan")])
def test_impossible_validation(numbered_set, validation):
  directory = numbered_set(6)
  with pytest.raises(ValueError, match=f"validation={validation}"):
    data.stream("tiny", OPTIONS, data_dir=directory, validation=validation)


def test_images_of_several_sizes_need_a_size(numbered_set):
  options = data.StreamOptions(
    mean=0.0, std=1.0, eval_crop=data.CenterCrop(8, None)
  )
  with pytest.raises(ValueError, match=r"short_side=None .* differ in size"):
    data.stream("tiny", options, data_dir=numbered_set(3))


@pytest.mark.parametrize(
  ("features", "message"),
  [
    ({"label": None}, "image feature 'image'"),
    ({"image": (4, 4, 4)}, "grey or RGB"),
  ],
)
def test_other_features(make_set, features, message):
  import tensorflow_datasets as tfds

  shape = features.get("image", (4, 4, 3))
  row = {"image": np.zeros(shape, np.uint8)}
  spec = {"image": tfds.features.Image(shape=shape)}
  if "label" not in features:
    row["label"], spec["label"] = 0, tfds.features.ClassLabel(num_classes=2)
  directory = make_set(spec, {"train": [row], "test": [row]})
  with pytest.raises(ValueError, match=message):
    data.stream("tiny", OPTIONS, data_dir=directory)


def test_other_file_formats(numbered_set, monkeypatch):
  import tensorflow_datasets as tfds

  directory = numbered_set(3)
  monkeypatch.setattr(
    tfds.core.DatasetInfo,
    "file_format",
    tfds.core.FileFormat.ARRAY_RECORD,
  )
  with pytest.raises(ValueError, match="TFRecord"):
    data.stream("tiny", OPTIONS, data_dir=directory)


def test_training_examples_are_the_first_that_are_not_held_out(make_real):
  directory = make_real("cifar10", {"train": range(8), "test": [0]})

  def stream(count):
    return data.stream(
      "cifar10",
      OPTIONS,
      data_dir=directory,
      validation=0.25,
      train_examples=count,
    )

  np.testing.assert_array_equal(all_rows(stream(4).train)["label"], range(4))
  np.testing.assert_array_equal(all_rows(stream(4).validation)["label"], [6, 7])
  for count in (0, 7):
    with pytest.raises(ValueError, match=f"train_examples={count} must be 1"):
      stream(count)
