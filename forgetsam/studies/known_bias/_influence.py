"""How much the patch moves the logits, and how much the content does."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from forgetsam._typing import NDArray, PyTree
from forgetsam.data.biased import paste
from forgetsam.forgetting import LogitsFn, batched


class ImagePairs(NamedTuple):
  """Images in pairs that differ in one thing.

  Attributes:
    images: content i with a patch at place p_i, drawn without regard to it.
    moved: content i with the patch at another place.
    exchanged: the content of another class, with the patch at place p_i.
  """

  images: Any
  moved: Any
  exchanged: Any


class Influence(NamedTuple):
  """How far logits move where the patch moves, or the content is exchanged."""

  patch: Float[Array, ""]
  content: Float[Array, ""]

  @property
  def ratio(self) -> Float[Array, ""]:
    """patch / content: it does not change with the scale of the logits."""
    return self.patch / self.content


def make_pairs(
  images: UInt8[np.ndarray, "n height width channels"],
  labels: Int[np.ndarray, " n"],
  *,
  size: int,
  num_places: int,
  seed: int,
) -> ImagePairs:
  """Pairs of images of which only the patch, or only the content, differs.

  Both changes point at another class: the new place is any of the K - 1 others,
  the new content that of a random example of any other class.

  Args:
    images: the real ones, without a patch.
    labels: their classes; at least two must occur.
    size: pixels along a side of the patch.
    num_places: K.
    seed: of places and partners.

  Returns:
    Three arrays of images, example by example.
  """
  if len(np.unique(labels)) < 2:
    raise ValueError(
      "labels must hold two classes at least: content is exchanged for another"
      " class's"
    )
  rng = np.random.default_rng(seed)
  places = rng.integers(num_places, size=len(labels))
  others = (places + rng.integers(1, num_places, len(labels))) % num_places
  partners = np.array([rng.choice(np.flatnonzero(labels != y)) for y in labels])
  patch = {"size": size, "num_places": num_places}
  return ImagePairs(
    paste(images, places, **patch),
    paste(images, others, **patch),
    paste(images[partners], places, **patch),
  )


def influence(
  logits_fn: LogitsFn,
  params: PyTree,
  pairs: ImagePairs,
  *,
  batch_size: int | None = None,
) -> Influence:
  r"""The influence of the patch, and that of the content, on the logits.

  .. math:: I = \frac1{nK} \sum_{i=1}^n \sum_{k=1}^K
     \lvert \tilde z_k(x_i) - \tilde z_k(x'_i) \rvert, \qquad
     \tilde z_k = z_k - \frac1K \sum_j z_j

  with x' the same content with the patch elsewhere (patch), or other content
  with the same patch (content). The logits are centred: what is added to all of
  them changes no output.

  Args:
    logits_fn: `(params, images) -> logits [batch, classes]`, deterministic.
    params: the network's weights.
    pairs: as `logits_fn` takes images, or what `make_pairs` gives where
      `logits_fn` normalises grey levels itself.
    batch_size: examples at a time; it bounds memory and nothing else.

  Returns:
    Both influences, in units of the logits.

  Example:
    >>> pixels = jnp.eye(2)[:, :, None, None]
    >>> linear = lambda w, x: x.reshape(len(x), -1) @ w
    >>> pairs = ImagePairs(pixels, pixels[::-1], jnp.zeros_like(pixels))
    >>> w = jnp.array([[1.0, -1.0], [-1.0, 1.0]])
    >>> i = influence(linear, w, pairs)
    >>> float(i.patch), float(i.content), float(i.ratio)
    (2.0, 1.0, 2.0)
  """

  def centred(images: Any) -> Array:
    logits = batched(logits_fn, params, images, batch_size)
    return logits - logits.mean(axis=1, keepdims=True)

  base = centred(pairs.images)
  patch, content = (
    jnp.abs(centred(other) - base).mean()
    for other in (pairs.moved, pairs.exchanged)
  )
  return Influence(patch, content)


def accuracy(
  logits: Float[NDArray, "n classes"], labels: Int[NDArray, " n"]
) -> Float[Array, ""]:
  """The fraction of examples whose largest logit is the label's."""
  return jnp.mean(jnp.argmax(logits, axis=1) == jnp.asarray(labels))
