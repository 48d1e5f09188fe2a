"""Eigen-SAM on a quadratic, whose eigenvectors are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import data_mesh

import forgetsam as fs

A = jnp.diag(jnp.array([1.0, 2.0, 8.0]))
TOP = np.array([0.0, 0.0, 1.0])
W = jnp.array([2.0, -1.0, -0.5])
RHO, ALPHA = 0.5, 0.3


def grad_fn(w):
  return A @ w


def by_hand(g, v):
  u = g / np.linalg.norm(g)
  return RHO * (u + ALPHA * np.sign(g @ v) * (v - (u @ v) * u))


def test_the_eigenvector_turns_the_offset_away_from_the_gradient():
  perturbation = fs.eigen_sam(RHO, ALPHA, freq=2, steps=8)
  state = perturbation.init(W)
  update = jax.jit(lambda g, s: perturbation.update(g, s, W, grad_fn=grad_fn))
  g = A @ W
  for count in range(4):
    delta, state = update(g, state)
    known = count >= 2
    v = TOP if known else np.zeros(3)
    np.testing.assert_allclose(delta, by_hand(g, v), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(np.abs(state.eigenvector), TOP, atol=1e-3)
  zeros, _ = update(0 * g, state)
  np.testing.assert_array_equal(zeros, 0)


def test_the_first_offsets_may_be_in_proportion():
  perturbation = fs.eigen_sam(RHO, ALPHA, scaled_start=True)
  g = A @ W
  delta, _ = perturbation.update(g, perturbation.init(W), W, grad_fn=grad_fn)
  np.testing.assert_allclose(delta, RHO * g, rtol=1e-6)


def test_micro_batches_estimate_one_eigenvector():
  """Their starts agree, or their mean would be short and of no direction."""

  def forward(params, model_state, images, *, train, key):
    return images @ params, model_state

  def loss(outputs, labels):
    return jnp.mean((outputs - labels) ** 2)

  images = jnp.tile(jnp.sqrt(8 * A), (4, 1))[:, None]
  batch = {"image": images.reshape(12, 3)[:8], "label": jnp.zeros(8)}
  mesh = data_mesh(2)
  perturb = fs.perturbed_gradient(fs.eigen_sam(RHO, ALPHA, freq=1, steps=9))
  optimizer = fs.sgdw(0.0)
  step = fs.make_train_step(
    forward,
    loss=loss,
    optimizer=optimizer,
    perturb=perturb,
    micro_batch_size=4,
    mesh=mesh,
  )
  state = fs.create_train_state(jnp.asarray(W), {}, optimizer, perturb, mesh)
  for _ in range(2):
    state, _ = step(state, batch, jax.random.key(0))
  v = state.perturb_state.perturbation.eigenvector
  np.testing.assert_allclose(np.linalg.norm(v), 1, rtol=1e-3)


def test_what_is_missing_or_impossible_is_named():
  for arguments, message in (
    ({"rho": -0.1}, r"rho=-0\.1 must"),
    ({"alpha": float("nan")}, "alpha=nan must"),
    ({"freq": 0}, "freq=0 must"),
    ({"steps": 0}, "steps=0 must"),
    ({"seed": -1}, "seed=-1 must"),
  ):
    with pytest.raises(ValueError, match=message):
      fs.eigen_sam(**{"rho": RHO, "alpha": ALPHA} | arguments)
  perturbation = fs.eigen_sam(RHO, ALPHA)
  with pytest.raises(ValueError, match="eigen_sam needs grad_fn"):
    perturbation.update(W, perturbation.init(W), W)
