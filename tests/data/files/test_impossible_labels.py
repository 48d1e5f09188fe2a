"""Labels that name no class are refused before anything is trained on them."""

import numpy as np
import pytest

from forgetsam import data

K = 3
GOOD = np.arange(12) % K
HALF = np.where(np.arange(12) % 2, -1, GOOD)
OPTIONS = data.StreamOptions(
  mean=0.0,
  std=1.0,
  train_crop=data.RandomResizedCrop(size=4),
  eval_crop=data.CenterCrop(size=4, short_side=4),
  threads=2,
)


@pytest.fixture
def labelled(make_set):
  """A set of these labels, which TFDS lets be any of `written` classes."""
  import tensorflow_datasets as tfds

  def make(train, test=GOOD, written=K):
    def rows(labels):
      image = np.zeros((4, 4, 1), np.uint8)
      return [{"image": image, "label": int(label)} for label in labels]

    directory = make_set(
      {
        "image": tfds.features.Image(shape=(4, 4, 1)),
        "label": tfds.features.ClassLabel(num_classes=written),
      },
      {"train": rows(train), "test": rows(test)},
    )
    file = directory / "tiny" / "1.0.0" / "features.json"
    text = file.read_text()
    assert f'"numClasses": "{written}"' in text
    file.write_text(text.replace(f'"{written}"', f'"{K}"'))
    return directory

  return make


OPENED = {
  "stream": lambda where: data.stream("tiny", OPTIONS, data_dir=where),
  "load": lambda where: data.load("tiny", data_dir=where),
}
NONE_OF_3 = "is without a label .-1., and 11 more like it\n.*all 0 to 2"


@pytest.mark.parametrize("opened", OPENED.values(), ids=OPENED)
@pytest.mark.parametrize(
  ("labels", "said"),
  [
    (
      {"train": GOOD - GOOD - 1},
      f"'train' of tiny/1.0.0: example 0 {NONE_OF_3}",
    ),
    ({"train": HALF}, "'train' of tiny/1.0.0: example 1 is without.* 5 more"),
    (
      {"train": GOOD, "test": GOOD - GOOD - 1},
      f"'test' of tiny/1.0.0: example 0 {NONE_OF_3}",
    ),
    ({"train": GOOD + 1, "written": 5}, "example 2 has label 3, and 3 more"),
  ],
)
def test_they_are_refused_and_the_first_is_named(
  labelled, opened, labels, said
):
  with pytest.raises(ValueError, match=said):
    opened(labelled(**labels))


def test_a_part_of_a_split_is_checked_alone(labelled):
  directory = labelled(np.r_[GOOD, HALF])
  split = data.stream_split("tiny", "train[:12]", OPTIONS, data_dir=directory)
  assert len(split) == 12
  with pytest.raises(ValueError, match="example 2 is without a label"):
    data.stream_split("tiny", "train[11:]", OPTIONS, data_dir=directory)


def test_beyond_the_first_of_a_large_split_they_are_named_when_read(
  labelled, monkeypatch
):
  monkeypatch.setattr("forgetsam.data.files._labels._MOST", 9)
  labels = np.r_[GOOD[:10], -1, 1]
  split = data.stream_split("tiny", "train", OPTIONS, data_dir=labelled(labels))
  with pytest.raises(data.DataError, match=r"train'.*: example 10 is without"):
    list(split.eval_batches(batch_size=4))
  # Of several processes, by the one that reads it.
  plan = {"batch_size": 4, "seed": 3, "num_steps": 3}
  halves = [split.train_batches(**plan, shard=(index, 2)) for index in (0, 1)]
  [said] = filter(None, map(stopped, halves))
  assert "example 10 is without" in said


def stopped(batches):
  """The error that ends them, if any."""
  try:
    list(batches)
  except data.DataError as error:
    return str(error)
  return None


def test_one_class_is_nothing_to_learn(make_set):
  import tensorflow_datasets as tfds

  row = {"image": np.zeros((4, 4, 1), np.uint8), "label": 0}
  directory = make_set(
    {
      "image": tfds.features.Image(shape=(4, 4, 1)),
      "label": tfds.features.ClassLabel(num_classes=1),
    },
    {"train": [row] * 4, "test": [row]},
  )
  for opened in OPENED.values():
    with pytest.raises(ValueError, match=r"num_classes=1.*two classes or more"):
      opened(directory)
