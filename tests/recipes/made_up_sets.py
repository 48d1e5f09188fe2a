"""Sets with the names and features of TFDS's, and a few made-up images."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def _encoded(shape: Sequence[int | None], seed: int, form: str) -> bytes:
  height, width, channels = shape
  size = (height or 90, width or 100 + seed % 5, channels or 3)
  pixels = np.random.RandomState(seed).randint(0, 256, size).astype(np.uint8)
  file = io.BytesIO()
  Image.fromarray(pixels.squeeze()).save(file, form)
  return file.getvalue()


def make_set(
  directory: Path,
  name: str,
  labels: Mapping[str, Sequence[Any]],
  *,
  config: str | None = None,
  label: str = "label",
) -> None:
  """Prepares a set of the same features as TFDS's set of that name.

  Args:
    directory: a TFDS data directory.
    name: the TFDS name.
    labels: for each split, the labels of its images.
    config: the TFDS configuration.
    label: the feature that holds the label.
  """
  import tensorflow_datasets as tfds

  real = tfds.builder_cls(name)(
    data_dir=directory, **({"config": config} if config else {})
  )
  features = dict(real.info.features.items())
  form = "JPEG" if features["image"].encoding_format == "jpeg" else "PNG"
  fillers: dict[str, Any] = {"file_name": "f.JPEG", "id": "i"}
  fillers |= {"coarse_label": 0, "original_label": 0}

  def rows(values: Sequence[Any]) -> list[tuple[int, dict[str, Any]]]:
    return [
      (
        i,
        {
          field: {
            **fillers,
            "image": _encoded(features["image"].shape, i, form),
            label: value,
          }[field]
          for field in features
        },
      )
      for i, value in enumerate(values)
    ]

  class MadeUp(tfds.core.GeneratorBasedBuilder, skip_registration=True):
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
        split: self._generate_examples(values)
        for split, values in labels.items()
      }

    def _generate_examples(self, values):
      yield from rows(values)

  MadeUp.name = name
  MadeUp(data_dir=directory).download_and_prepare()
