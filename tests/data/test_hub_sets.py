"""Sets of the Hugging Face Hub, with a builder that stands in for it."""

import importlib.util

import numpy as np
import pytest

from forgetsam import data

NAME = "huggingface:someone__shapes"


@pytest.fixture
def hub(monkeypatch, tmp_path):
  """Lets TFDS find a builder under the Hub's name, as if it had asked."""
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core.dataset_builders import (
    huggingface_dataset_builder,
  )

  class Shapes(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.0.0")
    name = "someone__shapes"

    def _info(self):
      features = {
        "image": tfds.features.Image(shape=(2, 2, 1)),
        "label": tfds.features.ClassLabel(num_classes=2),
      }
      return tfds.core.DatasetInfo(
        builder=self, features=tfds.features.FeaturesDict(features)
      )

    def _split_generators(self, dl_manager):
      return {split: self._generate_examples() for split in ("train", "test")}

    def _generate_examples(self):
      for i in range(6):
        yield i, {"image": np.full((2, 2, 1), i, np.uint8), "label": i % 2}

  def builder(name, **options):
    assert name == "someone__shapes"
    return Shapes(**options)

  monkeypatch.setattr(huggingface_dataset_builder, "builder", builder)
  return tmp_path


def pretend(monkeypatch, installed):
  find = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util,
    "find_spec",
    lambda name, *a: installed if name == "datasets" else find(name, *a),
  )


def test_a_set_is_fetched_once_and_then_found(hub, monkeypatch):
  pretend(monkeypatch, installed=True)
  data.check_available(NAME, hub)
  images = data.load(NAME, data_dir=hub)
  assert (len(images.train), images.num_classes) == (6, 2)
  pretend(monkeypatch, installed=None)
  data.check_available(NAME, hub)
  assert data.prepared_name(NAME, hub) == "someone__shapes:1.0.0"
  options = data.StreamOptions(mean=0.0, std=1.0)
  assert len(data.stream(NAME, options, data_dir=hub).train) == 6


def test_without_datasets_parquet_is_the_way(tmp_path, monkeypatch):
  pretend(monkeypatch, installed=None)
  with pytest.raises(data.DatasetNotFoundError, match=r"(?s)datasets.*Parquet"):
    data.check_available(NAME, tmp_path)


def test_what_the_hub_refuses_is_said(tmp_path, monkeypatch):
  pretend(monkeypatch, installed=True)
  with pytest.raises(data.DatasetNotFoundError, match="cannot be fetched"):
    data.load(NAME, data_dir=tmp_path)
