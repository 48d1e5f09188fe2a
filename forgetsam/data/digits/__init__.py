"""scikit-learn's bundled handwritten digits as a TFDS set.

Importing this module registers the builder, so that `tfds.load("digits")`
works. It needs no network.
"""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int, Int64

from forgetsam.data import _subsets

_DESCRIPTION = """
1,797 images of handwritten digits, 8x8 pixels: the test part of the UCI set
"Optical Recognition of Handwritten Digits" as scikit-learn bundles it. Grey
levels 0 to 16 are scaled to 0 to 255. The split is ours: 360 images, the
classes in proportion, are the test split. It is fixed; the writers of the
digits are not known, so one writer's digits may stand on both sides.
"""

_CITATION = """
@misc{alpaydin1998optical,
  author = {Alpaydin, E. and Kaynak, C.},
  title = {Optical Recognition of Handwritten Digits},
  year = {1998},
  publisher = {UCI Machine Learning Repository},
  doi = {10.24432/C50P49}
}
"""

_NUM_TEST = 360
_SPLIT_SEED = 0


def split_positions(
  labels: Int[np.ndarray, " n"],
) -> dict[str, Int64[np.ndarray, " m"]]:
  """Positions in scikit-learn's order of the train and the test examples."""
  keys = _subsets.draws(
    len(labels), seed=_SPLIT_SEED, purpose=_subsets.Purpose.TEST
  )
  test = _subsets.stratified(labels, _NUM_TEST, keys)
  return {"train": _subsets.complement(len(labels), test), "test": test}


class Digits(tfds.core.GeneratorBasedBuilder):
  """Handwritten digits, 8x8 grey, 10 classes, 1,437 train and 360 test."""

  VERSION = tfds.core.Version("1.0.0")
  RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=_DESCRIPTION,
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(shape=(8, 8, 1)),
          "label": tfds.features.ClassLabel(num_classes=10),
        }
      ),
      supervised_keys=("image", "label"),
      homepage="https://archive.ics.uci.edu/dataset/80",
      citation=_CITATION,
      # The order of the files is then the order of scikit-learn.
      disable_shuffling=True,
    )

  def _split_generators(
    self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
    del dl_manager  # Nothing is downloaded.
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images[..., None] * (255 / 16)).astype(np.uint8)
    labels = digits.target.astype(np.int32)
    return {
      split: self._generate_examples(images, labels, positions)
      for split, positions in split_positions(labels).items()
    }

  def _generate_examples(
    self,
    images: np.ndarray,
    labels: np.ndarray,
    positions: np.ndarray,
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    for position in positions:
      yield (
        int(position),
        {"image": images[position], "label": int(labels[position])},
      )
