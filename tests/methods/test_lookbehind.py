"""Lookbehind against its loop by hand, in a step and in one's own loop."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from meshes import data_mesh

import forgetsam as fs

A = jnp.array([[3.0, 1.0], [1.0, 2.0]])
W = jnp.array([1.0, -2.0])
RHO, RATE, MOMENTUM = 0.4, 0.1, 0.9


def unit(g):
  return g / np.linalg.norm(g)


def grad_fn(w):
  return A @ w


def test_passes_are_not_taken_twice_where_the_loss_ascends():
  calls = []

  def counted(w):
    calls.append(w)
    return A @ w

  transform = fs.lookbehind(fs.sam(RHO), k=3)
  grads, state = transform.update(
    A @ W, transform.init(W), W, grad_fn=counted, ascent_fn=counted
  )
  assert len(calls) == 3
  point, g = W, A @ W
  for found in grads:
    point = point + RHO * unit(g)
    g = A @ point
    np.testing.assert_allclose(found, g, rtol=1e-5)
  moved = np.linalg.norm(point - W)
  np.testing.assert_allclose(state.perturbation_norm, moved, rtol=1e-5)


def test_another_ascent_is_taken_at_every_point():
  transform = fs.lookbehind(fs.sam(RHO), k=2)
  first, second = transform.update(
    jnp.tanh(W), transform.init(W), W, grad_fn=grad_fn, ascent_fn=jnp.tanh
  )[0]
  point = W + RHO * unit(np.tanh(W))
  np.testing.assert_allclose(first, A @ point, rtol=1e-5)
  point = point + RHO * unit(np.tanh(point))
  np.testing.assert_allclose(second, A @ point, rtol=1e-5)


def test_decay_acts_on_the_fast_weights():
  optimizer = fs.slow_weights(fs.sgdw(RATE, 0.5, weight_decay=0.3), 0.4)
  stacked = jnp.stack([W, 2 * W])
  fast, trace = W, 0.0
  for d in stacked:
    trace = 0.5 * trace + d
    fast = fast - RATE * (trace + 0.3 * fast)
  updates, _ = optimizer.update(stacked, optimizer.init(W), W)
  np.testing.assert_allclose(updates, 0.4 * (fast - W), rtol=1e-5)


IMAGES = jax.random.normal(jax.random.key(0), (8, 3))
LABELS = jnp.arange(8) % 2
LOSS = fs.softmax_cross_entropy()


def forward(params, model_state, images, *, train, key):
  return images @ params, model_state


@pytest.mark.parametrize("devices", [None, 2])
def test_in_a_step_the_stacked_gradients_are_averaged(devices):
  mesh = None if devices is None else data_mesh(devices)
  w = jax.random.normal(jax.random.key(1), (3, 2))
  perturb = fs.lookbehind(fs.sam(RHO), 2)
  optimizer = fs.slow_weights(optax.sgd(RATE, MOMENTUM), 0.5)
  step = fs.make_train_step(
    forward,
    loss=LOSS,
    optimizer=optimizer,
    perturb=perturb,
    micro_batch_size=4,
    mesh=mesh,
  )
  state = fs.create_train_state(w, {}, optimizer, perturb, mesh)
  trace = jnp.zeros_like(w)
  for _ in range(2):
    state, metrics = step(
      state, {"image": IMAGES, "label": LABELS}, jax.random.key(0)
    )
    stacked = []
    for x, y in zip(jnp.split(IMAGES, 2), jnp.split(LABELS, 2), strict=True):
      gradient = jax.grad(lambda w, x=x, y=y: LOSS(x @ w, y))
      first = w + RHO * unit(gradient(w))
      second = first + RHO * unit(gradient(first))
      stacked.append(jnp.stack([gradient(first), gradient(second)]))
    fast = w
    for d in sum(stacked) / 2:
      trace = MOMENTUM * trace + d
      fast = fast - RATE * trace
    w = 0.5 * fast + 0.5 * w
    np.testing.assert_allclose(state.params, w, rtol=1e-4, atol=1e-6)
    assert metrics["skipped"] == 0


def test_gradients_that_nothing_unstacks_are_refused():
  perturb, optimizer = fs.lookbehind(fs.sam(RHO), 2), optax.sgd(RATE)
  step = fs.make_train_step(
    forward, loss=LOSS, optimizer=optimizer, perturb=perturb
  )
  state = fs.create_train_state(jnp.ones((3, 2)), {}, optimizer, perturb)
  with pytest.raises(ValueError, match=r"shape \(2, 3, 2\).*slow_weights"):
    step(state, {"image": IMAGES, "label": LABELS}, jax.random.key(0))


def test_what_is_missing_or_impossible_is_named():
  with pytest.raises(ValueError, match="k=0 must be an integer"):
    fs.lookbehind(fs.sam(RHO), 0)
  with pytest.raises(ValueError, match=r"alpha=1\.5 must be in"):
    fs.slow_weights(optax.sgd(RATE), 1.5)
  transform = fs.lookbehind(fs.sam(RHO), 2)
  with pytest.raises(ValueError, match="lookbehind needs ascent_fn"):
    transform.update(W, transform.init(W), W, grad_fn=grad_fn)
  optimizer = fs.slow_weights(optax.sgd(RATE))
  with pytest.raises(ValueError, match=r"shape \(2,\).*lookbehind stacks"):
    optimizer.update(W, optimizer.init(W), W)
