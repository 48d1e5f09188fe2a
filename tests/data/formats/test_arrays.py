"""Arrays of any kind become sets, or are refused by name."""

import numpy as np
import pytest

from forgetsam import data

RNG = np.random.RandomState(0)
PIXELS = RNG.randint(0, 256, (20, 4, 3)).astype(np.uint8)
VECTORS = RNG.standard_normal((20, 5))
TOKENS = RNG.randint(0, 7, (20, 6))
CLASSES = np.arange(20) % 2
WEIGHTS = (TOKENS > 1).astype(float)


def batches(images, **processing):
  sources = data.in_memory(images, **processing)
  assert isinstance(sources.train, data.BatchSource)
  plan = {"batch_size": 4, "seed": 0}
  train = next(sources.train.train_batches(**plan, num_steps=1))
  rows = sources.train.train_indices(**plan, step=0)
  return sources, train, rows, next(sources.test.eval_batches(batch_size=8))


@pytest.mark.parametrize(
  ("inputs", "labels", "dtypes", "classes"),
  [
    (VECTORS, VECTORS[:, 0], (np.float32, np.float32), 1),
    (TOKENS, TOKENS, (np.int32, np.int32), 7),
    (PIXELS.astype(np.float16), CLASSES, (np.float32, np.int32), 2),
  ],
)
def test_inputs_and_labels_reach_batches_as_they_are(
  inputs, labels, dtypes, classes
):
  images = data.from_arrays((inputs, labels))
  sources, train, rows, test = batches(images)
  for name, array in (("image", inputs), ("label", labels)):
    np.testing.assert_array_equal(
      train[name], array[rows].astype(train[name].dtype)
    )
    np.testing.assert_array_equal(
      test[name][:4], array[images.test.ids].astype(test[name].dtype)
    )
  assert (train["image"].dtype, train["label"].dtype) == dtypes
  assert (sources.image_dtype, sources.label_dtype) == dtypes
  assert (sources.image_shape, sources.label_shape) == (
    inputs.shape[1:],
    labels.shape[1:],
  )
  assert sources.num_classes == classes
  assert "mask" not in train
  np.testing.assert_array_equal(test["mask"], [1, 1, 1, 1, 0, 0, 0, 0])


def test_images_are_normalised_and_have_channels():
  images = data.from_arrays({"image": PIXELS, "label": CLASSES})
  sources, train, rows, _ = batches(images, mean=0.5, std=0.5)
  assert sources.image_shape == (4, 3, 1)
  expected = (PIXELS[rows][..., None] / 255 - 0.5) / 0.5
  np.testing.assert_allclose(train["image"], expected, atol=1e-5)


def test_weights_reach_every_batch_and_excuse_labels():
  labels = np.where(WEIGHTS > 0, TOKENS, -1)
  images = data.from_arrays((TOKENS, labels, WEIGHTS))
  sources, train, rows, test = batches(images)
  np.testing.assert_array_equal(train["mask"], WEIGHTS[rows])
  np.testing.assert_array_equal(test["mask"][:4], WEIGHTS[images.test.ids])
  assert not test["mask"][4:].any()
  first = next(data.first_batches(sources.test, 2, batch_size=8))
  np.testing.assert_array_equal(first["mask"][:2], WEIGHTS[images.test.ids[:2]])
  assert not first["mask"][2:].any()


def test_splits_are_fixed_by_the_seed_and_in_proportion():
  choices = {"validation": 0.25, "train_examples": 8, "label_noise": 0.5}
  sets = [
    data.from_arrays((VECTORS, CLASSES), split_seed=seed, **choices)
    for seed in (0, 0, 1)
  ]
  ids = [
    [split.ids.tolist() for split in (s.train, s.validation, s.test)]
    for s in sets
  ]
  assert ids[0] == ids[1] != ids[2]
  assert [len(i) for i in ids[0]] == [8, 4, 4]
  assert not set(ids[0][0]) & set(ids[0][1]) | set(ids[0][0]) & set(ids[0][2])
  np.testing.assert_array_equal(np.bincount(sets[0].test.labels), [2, 2])
  assert (sets[0].train.labels != CLASSES[sets[0].train.ids]).sum() == 4


@pytest.mark.parametrize(
  "arrays",
  [
    {"x_train": VECTORS, "y_train": CLASSES, "x_test": VECTORS[:3]}
    | {"y_test": CLASSES[:3, None], "num_classes": 2},
    {"train_images": VECTORS, "train_labels": CLASSES[:, None]}
    | {"test_images": VECTORS[:3], "test_labels": CLASSES[:3]},
    ((VECTORS, CLASSES), (VECTORS[:3], CLASSES[:3])),
    {"image": VECTORS, "label": CLASSES, "val_x": VECTORS[:3]}
    | {"val_y": CLASSES[:3]},
  ],
)
def test_names_of_others_are_understood(arrays):
  if not isinstance(arrays, tuple) and "y_test" in arrays:
    arrays = arrays | {"y_train": CLASSES[:, None]}
  images = data.from_arrays(arrays)
  assert (len(images.train), len(images.test)) == (20, 3)
  assert images.train.labels.shape == (20,)


@pytest.mark.parametrize("kind", [int, float])
def test_one_hot_labels_are_classes(kind):
  one_hot = np.eye(4, dtype=kind)[CLASSES]
  images = data.from_arrays((VECTORS, one_hot))
  assert images.num_classes == 4
  np.testing.assert_array_equal(images.train.labels, CLASSES[images.train.ids])


def test_truths_are_labels_and_weights():
  arrays = {"x": VECTORS, "y": CLASSES == 1, "mask": np.arange(20) > 1}
  train = data.from_arrays(arrays).train
  np.testing.assert_array_equal(train.weights, train.ids > 1)
  np.testing.assert_array_equal(
    train.labels, np.where(train.ids > 1, CLASSES[train.ids], 0)
  )


def test_labels_that_count_from_one_are_noticed(caplog):
  assert data.from_arrays((VECTORS, CLASSES + 1)).num_classes == 3
  assert "no example of class 0" in caplog.text


def test_a_validation_split_of_its_own_is_used():
  pair = (VECTORS[:3], CLASSES[:3])
  images = data.from_arrays(((VECTORS, CLASSES), pair, pair), validation=0.5)
  assert (len(images.train), len(images.validation)) == (20, 3)


@pytest.mark.parametrize(
  ("arrays", "options", "words"),
  [
    ((VECTORS, CLASSES[:-1]), {}, "20 inputs and 19 labels"),
    ((VECTORS, CLASSES.astype(str)), {}, "train_y is <U21"),
    ((VECTORS.astype(object), CLASSES), {}, "train_x is object"),
    (([[1], [1, 2]], [0, 1]), {}, "train_x is no array"),
    ((np.where(VECTORS > 2, np.nan, VECTORS), CLASSES), {}, "not finite"),
    ((VECTORS, CLASSES - 1), {"num_classes": 2}, r"without a label \(-1\)"),
    ((VECTORS, CLASSES), {"num_classes": 1}, "num_classes=1"),
    ((VECTORS, CLASSES + 2**40), {}, "beyond 32 bits"),
    ((VECTORS * 1e300, CLASSES), {}, "not finite"),
    ({"image": VECTORS}, {}, "no labels of 'train'"),
    ({"image": VECTORS, "label": CLASSES, "why": 1}, {}, "'why' has no mean"),
    ({"image": VECTORS, "images": VECTORS}, {}, "as 'image'"),
    ({"test_x": VECTORS, "test_y": CLASSES}, {}, "no training split"),
    (((VECTORS, CLASSES), (TOKENS, CLASSES)), {}, "as those of 'train'"),
    ((VECTORS, CLASSES), {"test": 0.0}, "test=0.0 would test on 0 of 20"),
    ((VECTORS, TOKENS), {"label_noise": 0.1}, "one class for each example"),
    ((VECTORS, CLASSES, -CLASSES), {}, "negative weights"),
    ((VECTORS, CLASSES, VECTORS), {}, r"weights \[20, 5\]"),
    (3, {}, "gives int"),
    ({}, {}, "there are no arrays"),
    ((VECTORS[:, :0], CLASSES), {}, r"float64 \[20, 0\]"),
    ({0: VECTORS, 1: CLASSES}, {}, "'0' has no meaning"),
    (
      {"x": VECTORS, "y": CLASSES, "num_classes": "two"},
      {},
      "num_classes is 'two'",
    ),
  ],
)
def test_what_does_not_fit_is_named(arrays, options, words):
  with pytest.raises(ValueError, match=words):
    data.from_arrays(arrays, **options)


@pytest.mark.parametrize(
  "option", [{"mean": 0.5}, {"std": 0.5}, {"flip": True}, {"crop_padding": 1}]
)
def test_vectors_take_no_processing_of_images(option):
  train = data.in_memory(data.from_arrays((VECTORS, CLASSES)), **option).train
  with pytest.raises(ValueError, match=f"{next(iter(option))}=.*is for images"):
    train.train_batches(batch_size=4, seed=0)


def test_identity_is_the_content():
  same, other = CLASSES.copy(), CLASSES.copy()
  other[3] += 1
  found = [
    data.from_arrays((VECTORS, labels), num_classes=3).identity
    for labels in (CLASSES, same, other)
  ]
  assert found[0] == found[1] != found[2]
