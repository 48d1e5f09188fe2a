"""Influences against slow loops and networks that see one thing only."""

import jax.numpy as jnp
import numpy as np
import pytest

from forgetsam.data import biased
from forgetsam.studies.known_bias import (
  ImagePairs,
  Influence,
  accuracy,
  influence,
  make_pairs,
)

SHAPE, PLACES = (6, 6, 1), 4
CORNERS = biased.corners(SHAPE, 1, PLACES)


@pytest.fixture
def images():
  """Grey, with content in the middle, where no patch lies."""
  pixels = np.zeros((40, *SHAPE), np.uint8)
  pixels[:, 2:4, 2:4] = np.random.RandomState(0).randint(0, 200, (40, 2, 2, 1))
  return pixels


@pytest.fixture
def labels():
  return np.arange(40) % 3


@pytest.fixture
def pairs(images, labels):
  return make_pairs(images, labels, size=1, num_places=PLACES, seed=0)


def place_of(image):
  (place,) = np.flatnonzero([image[r, c, 0] == 255 for r, c in CORNERS])
  return place


def content_of(image):
  return image[2:4, 2:4].tobytes()


def test_a_pair_differs_in_one_thing(images, labels, pairs):
  class_of = {content_of(x): y for x, y in zip(images, labels, strict=True)}
  for i, (base, moved, exchanged) in enumerate(zip(*pairs, strict=True)):
    assert content_of(base) == content_of(moved) == content_of(images[i])
    assert place_of(base) != place_of(moved)
    assert place_of(base) == place_of(exchanged)
    assert class_of[content_of(exchanged)] != labels[i]


def test_places_and_partners_are_drawn_over_all_that_fit(images, labels):
  many = np.concatenate([images] * 50)
  pairs = make_pairs(
    many, np.tile(labels, 50), size=1, num_places=PLACES, seed=1
  )
  steps = [
    (place_of(moved) - place_of(base)) % PLACES
    for base, moved in zip(pairs.images, pairs.moved, strict=True)
  ]
  places = [place_of(base) for base in pairs.images]
  # 2,000 draws: six standard deviations of a count are below 130.
  assert np.all(np.abs(np.bincount(steps)[1:] - 2000 / 3) < 130)
  assert np.all(np.abs(np.bincount(places) - 500) < 130)
  assert len({content_of(x) for x in pairs.exchanged}) == 40


def test_another_seed_draws_other_pairs(images, labels, pairs):
  other = make_pairs(images, labels, size=1, num_places=PLACES, seed=1)
  again = make_pairs(images, labels, size=1, num_places=PLACES, seed=0)
  for a, b, c in zip(pairs, other, again, strict=True):
    assert np.any(a != b)
    np.testing.assert_array_equal(a, c)


def test_influence_is_the_mean_absolute_change_of_centred_logits(pairs):
  weights = np.random.RandomState(1).standard_normal((36, 3))

  def logits_fn(w, x):
    return jnp.tanh(jnp.reshape(x, (len(x), -1)) / 255.0 @ w)

  def slow(other):
    changes = []
    for x, y in zip(pairs.images, other, strict=True):
      z, z_other = (
        np.tanh(image.reshape(-1) / 255.0 @ weights) for image in (x, y)
      )
      for k in range(3):
        change = (z[k] - z.mean()) - (z_other[k] - z_other.mean())
        changes.append(abs(change))
    return np.mean(changes)

  found = influence(logits_fn, jnp.asarray(weights), pairs)
  np.testing.assert_allclose(found.patch, slow(pairs.moved), rtol=1e-5)
  np.testing.assert_allclose(found.content, slow(pairs.exchanged), rtol=1e-5)
  np.testing.assert_allclose(
    found.ratio, slow(pairs.moved) / slow(pairs.exchanged), rtol=1e-5
  )
  in_batches = influence(logits_fn, jnp.asarray(weights), pairs, batch_size=7)
  np.testing.assert_allclose(in_batches, found, rtol=1e-6)


def test_networks_that_see_one_thing_only(pairs):
  def sees_the_patch(_, x):
    return jnp.stack([x[:, r, c, 0] for r, c in CORNERS], 1) / 255.0

  def sees_the_content(_, x):
    return jnp.asarray(x[:, 2:4, 2:4]).reshape(len(x), 4) / 255.0

  found = influence(sees_the_patch, None, pairs)
  assert found.content == 0
  # One logit falls by 1 and another rises by it; the centre stays.
  np.testing.assert_allclose(found.patch, 2 / 4, rtol=1e-6)
  found = influence(sees_the_content, None, pairs)
  assert found.patch == 0
  assert found.content > 0


def test_what_is_added_to_all_logits_does_not_count(pairs):
  def shifted(_, x):
    return jnp.ones((1, 4)) * jnp.sum(x, (1, 2, 3))[:, None]

  found = influence(shifted, None, pairs)
  np.testing.assert_allclose(found, (0, 0), atol=1e-3)


def test_one_class_has_no_other_content(images):
  with pytest.raises(ValueError, match="two classes"):
    make_pairs(
      images, np.zeros(40, np.int64), size=1, num_places=PLACES, seed=0
    )


def test_ratio_and_accuracy():
  assert Influence(jnp.array(1.0), jnp.array(4.0)).ratio == 0.25
  logits = jnp.array([[2.0, 1.0], [0.0, 1.0], [0.0, 3.0], [1.0, 0.0]])
  assert accuracy(logits, np.array([0, 1, 0, 0])) == 0.75


def test_pairs_are_three_arrays(pairs):
  assert isinstance(pairs, ImagePairs)
  assert [x.shape for x in pairs] == [(40, *SHAPE)] * 3
