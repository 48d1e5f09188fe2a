"""Small sets, and no network: a test that opens a connection fails."""

import io
import shutil
import socket
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from forgetsam import data


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
  def refuse(*args, **kwargs):
    raise AssertionError(f"a connection was opened: {args}")

  monkeypatch.setattr(socket.socket, "connect", refuse)
  monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def default_dirs(monkeypatch, tmp_path):
  """TFDS's default directory and the user's cache, both below `tmp_path`."""
  import tensorflow_datasets as tfds

  monkeypatch.setattr(
    tfds.core.constants, "DATA_DIR", str(tmp_path / "default")
  )
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  return tmp_path / "default", tmp_path / "cache" / "forgetsam" / "tfds"


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory):
  directory = tmp_path_factory.mktemp("digits")
  data.load("digits", data_dir=directory)
  return directory


@pytest.fixture
def make_set(tmp_path):
  """Prepares a TFDS set of given features, splits and examples."""
  import tensorflow_datasets as tfds

  def make(features, splits, *, num_shards=1, name="tiny", config=None):
    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
      VERSION = tfds.core.Version("1.0.0")
      BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config)] if config else []

      def _info(self):
        return tfds.core.DatasetInfo(
          builder=self,
          features=tfds.features.FeaturesDict(features),
          disable_shuffling=True,
        )

      def _split_generators(self, dl_manager):
        return {
          split: self._generate_examples(examples)
          for split, examples in splits.items()
        }

      def _generate_examples(self, examples):
        yield from enumerate(examples)

    Tiny.name = name
    builder = Tiny(data_dir=tmp_path)
    builder.download_and_prepare(
      download_config=tfds.download.DownloadConfig(num_shards=num_shards)
    )
    return tmp_path

  return make


@pytest.fixture
def numbered_split():
  """Random images whose label is their position, to recognise them by."""

  def make(count, shape=(6, 5, 2), seed=0):
    rng = np.random.RandomState(seed)
    return data.Split(
      images=rng.randint(0, 256, (count, *shape)).astype(np.uint8),
      labels=np.arange(count, dtype=np.int32),
      ids=np.arange(count),
    )

  return make


@pytest.fixture
def photo():
  """Images with the spectrum of photographs: amplitudes fall with 1/f."""

  def make(height, width, seed=0):
    rng = np.random.RandomState(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    frequency[0, 0] = np.inf
    noise = rng.standard_normal((3, height, width)) + rng.standard_normal(
      (height, width)
    )
    planes = np.fft.ifft2(np.fft.fft2(noise) / frequency).real
    planes = 120 + 55 * planes / planes.std()
    return np.moveaxis(np.clip(planes, 0, 255).astype(np.uint8), 0, -1)

  return make


@pytest.fixture
def encode():
  """The bytes of an image file."""

  def encode(pixels, file_format="JPEG"):
    file = io.BytesIO()
    if pixels.shape[-1] == 1:
      pixels = pixels[..., 0]
    Image.fromarray(pixels).save(file, file_format)
    return file.getvalue()

  return encode


@pytest.fixture(scope="session")
def prepared_sets():
  """Copies of the numbered sets so far, by their options."""
  with tempfile.TemporaryDirectory() as folder:
    yield Path(folder)


@pytest.fixture
def numbered_set(make_set, photo, encode, prepared_sets, tmp_path):
  """A set of JPEGs, each labelled with its position."""
  import tensorflow_datasets as tfds

  def make(count, *, num_shards=1, shape=(20, 26), fixed=False):
    kept = prepared_sets / f"{count} {num_shards} {shape} {fixed}"
    if kept.exists():
      shutil.copytree(kept, tmp_path / "tiny", dirs_exist_ok=True)
      return tmp_path
    rows = [
      {"image": encode(photo(*shape, seed=i)), "label": i} for i in range(count)
    ]
    features = {
      "image": tfds.features.Image(
        shape=(*shape, 3) if fixed else None, encoding_format="jpeg"
      ),
      "label": tfds.features.ClassLabel(num_classes=count),
    }
    make_set(features, {"train": rows, "test": rows}, num_shards=num_shards)
    shutil.copytree(tmp_path / "tiny", kept)
    return tmp_path

  return make
