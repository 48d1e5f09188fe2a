"""A step taken apart, against loops and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import forgetsam as fs
from forgetsam.forgetting import offset_fn
from forgetsam.studies.known_bias import ImagePairs, influence, step_effect

LOSS = fs.softmax_cross_entropy()


def logits_fn(w, x):
  return jnp.tanh(x @ w["hidden"]) @ w["out"]


@pytest.fixture
def params():
  keys = jax.random.split(jax.random.key(0))
  return {
    "hidden": jax.random.normal(keys[0], (5, 7)),
    "out": jax.random.normal(keys[1], (7, 3)),
  }


@pytest.fixture
def batch():
  images = jax.random.normal(jax.random.key(1), (4, 6, 5))
  return images, jnp.arange(24).reshape(4, 6) % 3


@pytest.fixture
def pairs():
  return ImagePairs(*jax.random.normal(jax.random.key(2), (3, 10, 5)))


def logs(params, pairs):
  return np.log(np.array(influence(logits_fn, params, pairs)))


def add(params, other, scale):
  return jax.tree.map(lambda p, o: p + scale * o, params, other)


@pytest.mark.parametrize("method", ["sam", "obf", "random"])
def test_against_a_loop(method, params, batch, pairs):
  signal = (
    fs.output_bias_forgetting() if method == "obf" else fs.loss_ascent(LOSS)
  )
  perturbation = (
    fs.random_perturbation(0.3, seed=5) if method == "random" else fs.sam(0.3)
  )
  delta_fn = offset_fn(logits_fn, signal, perturbation)
  found = step_effect(logits_fn, LOSS, delta_fn)(params, *batch, pairs)
  forgotten, gradients = [], []
  for j, (images, labels) in enumerate(zip(*batch, strict=True)):
    moved = add(params, delta_fn(params, images, labels, micro_batch=j), 1)
    forgotten.append(logs(moved, pairs) - logs(params, pairs))
    gradients.append(
      jax.grad(lambda p, x=images, y=labels: LOSS(logits_fn(p, x), y))(moved)
    )
  mean = jax.tree.map(lambda *g: sum(g) / 4, *gradients)
  step = 1e-2
  learned = logs(add(params, mean, -step), pairs)
  learned -= logs(add(params, mean, step), pairs)
  np.testing.assert_allclose(
    found.forgotten, np.mean(forgotten, axis=0), atol=1e-5
  )
  np.testing.assert_allclose(
    found.learned, learned / (2 * step), rtol=2e-2, atol=1e-3
  )
  assert (
    found.forgotten.balance == found.forgotten.patch - found.forgotten.content
  )


def test_plain_training_forgets_nothing(params, batch, pairs):
  plain = step_effect(logits_fn, LOSS, None)(params, *batch, pairs)
  np.testing.assert_allclose(plain.forgotten, (0, 0), atol=1e-6)
  at_zero = step_effect(
    logits_fn, LOSS, offset_fn(logits_fn, fs.loss_ascent(LOSS), fs.sam(0.0))
  )(params, *batch, pairs)
  np.testing.assert_allclose(plain.learned, at_zero.learned, rtol=1e-5)
  assert np.all(np.abs(np.array(plain.learned)) > 1e-3)
