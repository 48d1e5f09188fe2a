"""The TFDS builders: importing this module registers their names."""

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from forgetsam.data._errors import DatasetNotFoundError
from forgetsam.data._search import find_prepared, source_directory
from forgetsam.data._split import Split
from forgetsam.data.biased._patch import PATCH_SIZE, draw_places, paste
from forgetsam.data.files import decode_split

_NUM_CLASSES = 10

_DESCRIPTION = """
The images of {source} with a white patch of {size}x{size} pixels at one of ten
places along the left and the right edge, one for each class. In `train` and in
`test` the place is the label's for a fraction q of the examples ({q} here) and
any other place for the rest. In `test_agree` it is always the label's, in
`test_random` it is drawn without regard to the label, in `test_conflict` it is
always another one's. All four test splits hold the same images in the order of
{source}'s own test split.
"""


@dataclasses.dataclass(kw_only=True)
class BiasConfig(tfds.core.BuilderConfig):
  """How often the patch's place agrees with the label."""

  q: float  # fraction of the training examples whose place is the label's
  seed: int = 0  # of all places


class _Biased(
  tfds.core.GeneratorBasedBuilder,
  skip_registration=True,  # type: ignore[call-arg]  # TFDS is untyped
):
  """Base of both sets; `SOURCE` names the set that they are made of."""

  VERSION = tfds.core.Version("1.0.0")
  RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}
  SOURCE: ClassVar[str]
  BUILDER_CONFIGS: ClassVar[list[BiasConfig]] = [
    BiasConfig(name="q95", q=0.95, description="95 % of places agree."),
    BiasConfig(name="q80", q=0.80, description="80 % of places agree."),
    BiasConfig(name="q10", q=0.10, description="The place says nothing."),
  ]

  def _info(self) -> tfds.core.DatasetInfo:
    side = {"digits": 8, "fashion_mnist": 28}[self.SOURCE]
    classes = tfds.features.ClassLabel(num_classes=_NUM_CLASSES)
    return tfds.core.DatasetInfo(
      builder=self,
      description=_DESCRIPTION.format(
        source=self.SOURCE,
        size=PATCH_SIZE[self.name],
        q=self.builder_config.q,
      ),
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(shape=(side, side, 1)),
          "label": classes,
          "place": tfds.features.ClassLabel(num_classes=_NUM_CLASSES),
        }
      ),
      supervised_keys=("image", "label"),
      # The order of the files is then the order of the source.
      disable_shuffling=True,
    )

  def _split_generators(
    self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
    del dl_manager  # Nothing is downloaded.
    source = self._source()
    train, test = (decode_split(source, name) for name in ("train", "test"))
    q = self.builder_config.q
    splits = {
      "train": (train, q),
      "test": (test, q),
      "test_agree": (test, 1.0),
      "test_random": (test, 1 / _NUM_CLASSES),
      "test_conflict": (test, 0.0),
    }
    return {
      name: self._generate_examples(
        split, agree, len(splits) * self.builder_config.seed + i
      )
      for i, (name, (split, agree)) in enumerate(splits.items())
    }

  def _generate_examples(
    self, split: Split, agree: float, seed: int
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    places = draw_places(
      split.labels[:], agree=agree, num_places=_NUM_CLASSES, seed=seed
    )
    images = paste(
      split.images[:],
      places,
      size=PATCH_SIZE[self.name],
      num_places=_NUM_CLASSES,
    )
    for position, image in enumerate(images):
      yield (
        position,
        {
          "image": np.ascontiguousarray(image),
          "label": int(split.labels[position]),
          "place": int(places[position]),
        },
      )

  def _source(self) -> tfds.core.DatasetBuilder:
    """The real images, prepared beside this set or where TFDS looks."""
    directory = source_directory(self.SOURCE, self._data_dir_root)
    builder = find_prepared(self.SOURCE, directory)
    if builder is None:
      raise DatasetNotFoundError(
        f"{self.name!r} is made of {self.SOURCE!r}, which is not prepared yet;"
        f" forgetsam.data.load({self.name!r}) prepares both"
      )
    return builder


class BiasedDigits(_Biased):
  """Scikit-learn's digits with a patch that tells the label."""

  SOURCE = "digits"


class BiasedFashion(_Biased):
  """Fashion-MNIST with a patch that tells the label."""

  SOURCE = "fashion_mnist"
