"""A network's accuracy on the splits, and what its logits depend on."""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from ml_collections import config_dict

from forgetsam import data, models
from forgetsam._typing import PyTree
from forgetsam.data import biased
from forgetsam.experiment.build import build_model
from forgetsam.forgetting import batched
from forgetsam.studies.known_bias._influence import (
  ImagePairs,
  accuracy,
  influence,
  make_pairs,
)

SPLITS = ("test_agree", "test_random", "test_conflict")
_PAIRS_SEED = 0
_SOURCES = {"biased_digits": "digits", "biased_fashion": "fashion_mnist"}


class Scorer:
  """The unbiased splits of a set, and image pairs from the same test images.

  Args:
    config: a run's configuration; its data set, normalisation and model count.
    num_pairs: how many of the first test images are paired.

  Attributes:
    logits_fn: `(params, grey levels [batch, ...]) -> logits`.
    pairs: pairs of images, as grey levels.
  """

  def __init__(self, config: config_dict.ConfigDict, *, num_pairs: int = 1000):
    name, where = config.data.name, config.data.dir
    base_name = name.partition("/")[0]
    real = _real_images(base_name, where)
    module = build_model(config, real.num_classes, real.image_shape)
    forward = models.forward(module)
    mean, std = np.float32(config.data.mean), np.float32(config.data.std)

    def logits_fn(params: PyTree, images: Array) -> Array:
      normal = (jnp.asarray(images, jnp.float32) / 255 - mean) / std
      return forward(params, {}, normal, train=False, key=None)[0]

    self.logits_fn = logits_fn
    self._splits = {
      split: data.load_split(name, split, data_dir=where) for split in SPLITS
    }
    pairs = make_pairs(
      real.test.images[:num_pairs],
      real.test.labels[:num_pairs],
      size=biased.PATCH_SIZE[base_name],
      num_places=real.num_classes,
      seed=_PAIRS_SEED,
    )
    self.pairs = ImagePairs(*map(jnp.asarray, pairs))
    self._logits = jax.jit(logits_fn)
    self._influence = jax.jit(functools.partial(influence, logits_fn))

  def score(self, params: PyTree) -> dict[str, float]:
    """`test_agree/accuracy` and so on; `influence/patch`, `content`, `ratio`.

    Args:
      params: of a network without model state.
    """
    results = {
      f"{name}/accuracy": accuracy(
        batched(self._logits, params, split.images, 2500), split.labels[:]
      )
      for name, split in self._splits.items()
    }
    found = self._influence(params, self.pairs)
    results |= {
      f"influence/{name}": getattr(found, name)
      for name in ("patch", "content", "ratio")
    }
    return {name: float(value) for name, value in results.items()}


def _real_images(
  base_name: str, where: str | os.PathLike[str] | None
) -> data.ImageData:
  source = _SOURCES.get(base_name)
  if source is None:
    raise ValueError(
      f"config.data.name={base_name!r} has no known bias; the sets that have"
      f" one: {', '.join(_SOURCES)}"
    )
  return data.load(source, data_dir=data.source_directory(source, where))
