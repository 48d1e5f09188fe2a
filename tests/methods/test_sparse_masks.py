"""Masks of sparse SAM, which micro-batches and devices have in common."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from meshes import data_mesh

import forgetsam as fs

RHO, SPARSITY = 0.3, 0.5
LOSS = fs.softmax_cross_entropy()
IMAGES = jax.random.normal(jax.random.key(0), (8, 3))
LABELS = jnp.arange(8) % 2
KERNEL = jax.random.normal(jax.random.key(1), (3, 2))


def forward(params, model_state, images, *, train, key):
  return images @ params, model_state


def run(mask, devices, steps):
  mesh = data_mesh(devices)
  optimizer = optax.sgd(0.5)
  perturb = fs.perturbed_gradient(fs.sparse_sam(RHO, mask))
  step = fs.make_train_step(
    forward,
    loss=LOSS,
    optimizer=optimizer,
    perturb=perturb,
    micro_batch_size=2,
    mesh=mesh,
  )
  state = fs.create_train_state(KERNEL, {}, optimizer, perturb, mesh)
  batch = {"image": IMAGES, "label": LABELS}
  for _ in range(steps):
    state, metrics = step(state, batch, jax.random.key(0))
  assert metrics["skipped"] == 0
  # Of the chain's second piece, `only`.
  return state.params, state.perturb_state.perturbation[1].mask


def example_gradients(w):
  """The gradient of each example's loss at w, [example, ...]."""
  gradient = jax.grad(lambda w, x, y: LOSS((x @ w)[None], y[None]))
  return jax.vmap(gradient, (None, 0, 0))(w, IMAGES, LABELS)


def largest(scores, count):
  threshold = np.sort(np.ravel(scores))[-count]
  return np.asarray(scores) >= threshold


def test_a_fisher_mask_is_that_of_all_micro_batches():
  """Of the first example of each, at the weights where it was renewed."""
  mask = fs.fisher_mask(SPARSITY, every=2, num_samples=1)
  for devices in (1, 2):
    params, state = run(mask, devices, steps=2)
    scores = example_gradients(KERNEL)[::2] ** 2
    np.testing.assert_allclose(state.scores, np.mean(scores, 0), rtol=1e-4)
    np.testing.assert_array_equal(state.mask, largest(state.scores, 3))
    if devices == 1:
      expected = params
  np.testing.assert_allclose(params, expected, rtol=1e-5)


@pytest.mark.parametrize("drop", ["gradient", "weight"])
def test_a_dynamic_mask_is_the_same_on_all_devices(drop):
  mask = fs.dynamic_mask(SPARSITY, 1, drop=drop, growth="gradient")
  (params, state), (expected, one) = (run(mask, n, steps=3) for n in (2, 1))
  np.testing.assert_array_equal(state.mask, one.mask)
  assert np.sum(state.mask) == 2  # int(1.5) that stay and int(1.5) that come
  np.testing.assert_allclose(params, expected, rtol=1e-5)


def test_a_mask_waits_for_its_turn():
  mask = fs.fisher_mask(
    SPARSITY, every=3, start=1, fisher=lambda w, **extra: w**2
  )
  w = jnp.array([1.0, 2.0, 3.0, 4.0])
  state, seen = mask.init(w), []
  for t in range(6):
    point = w[::-1] if t >= 3 else w
    chosen, state = mask.update(w, state, point)
    seen.append("".join("01"[int(x)] for x in chosen))
  assert seen == ["0000", "0011", "0011", "0011", "1100", "1100"]
