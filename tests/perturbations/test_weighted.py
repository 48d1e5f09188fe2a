"""WSAM's rule is the gradient of its objective."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from meshes import data_mesh

import forgetsam as fs

A = jnp.array([[3.0, 1.0], [1.0, 2.0]])
W = jnp.array([1.0, -2.0])
RHO = 0.5


def loss(w):
  return 0.5 * w @ A @ w


def gradient(gamma, w=W):
  transform = fs.perturbed_gradient(fs.sam(RHO), fs.weighted(gamma))
  g = jax.grad(loss)(w)
  return transform.update(g, transform.init(w), w, grad_fn=jax.grad(loss))[0]


@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.5, 0.8, 0.95])
def test_it_descends_the_loss_plus_the_weighted_sharpness(gamma):
  g = A @ W
  delta = RHO * g / jnp.linalg.norm(g)  # constant in the objective, as in SAM

  def objective(w):
    return loss(w) + gamma / (1 - gamma) * (loss(w + delta) - loss(w))

  np.testing.assert_allclose(gradient(gamma), jax.grad(objective)(W), rtol=1e-5)


def test_zero_is_plain_and_one_half_is_sam():
  np.testing.assert_array_equal(gradient(0.0), jax.grad(loss)(W))
  sam = fs.perturbed_gradient(fs.sam(RHO))
  expected, _ = sam.update(A @ W, sam.init(W), W, grad_fn=jax.grad(loss))
  np.testing.assert_array_equal(gradient(0.5), expected)


def test_first_in_a_chain_with_a_traced_gamma():
  def update(gamma):
    chain = optax.chain(
      fs.perturbed_gradient(fs.sam(RHO), fs.weighted(gamma)), optax.sgd(0.1)
    )
    g = jax.grad(loss)(W)
    return chain.update(g, chain.init(W), W, grad_fn=jax.grad(loss))[0]

  gammas = jnp.array([0.2, 0.9])
  for gamma, updates in zip(gammas, jax.vmap(update)(gammas), strict=True):
    expected = -0.1 * gradient(float(gamma))
    np.testing.assert_allclose(updates, expected, rtol=1e-5)


def test_in_the_train_step_on_eight_devices():
  images = jax.random.normal(jax.random.key(0), (8, 3))
  labels = jnp.arange(8) % 2
  kernel = jax.random.normal(jax.random.key(1), (3, 2))
  loss = fs.softmax_cross_entropy()

  def forward(params, model_state, images, *, train, key):
    return images @ params["kernel"], model_state

  mesh = data_mesh()
  optimizer = optax.sgd(1.0)
  perturb = fs.perturbed_gradient(fs.sam(RHO), fs.weighted(0.8))
  step = fs.make_train_step(
    forward,
    loss=loss,
    optimizer=optimizer,
    perturb=perturb,
    micro_batch_size=1,
    mesh=mesh,
  )
  state = fs.create_train_state(
    {"kernel": kernel}, {}, optimizer, perturb, mesh
  )
  state, _ = step(state, {"image": images, "label": labels}, jax.random.key(0))
  total = 0
  for i in range(8):
    x, y = images[i : i + 1], labels[i : i + 1]
    gradient = jax.grad(lambda w, x=x, y=y: loss(x @ w, y))
    g = gradient(kernel)
    total += 4 * gradient(kernel + RHO * g / jnp.linalg.norm(g)) - 3 * g
  np.testing.assert_allclose(
    state.params["kernel"], kernel - total / 8, rtol=1e-4, atol=1e-6
  )


def test_low_precision_is_mixed_in_float32():
  one = jnp.asarray(1.0, jnp.bfloat16)
  result = fs.weighted(0.75)(one, None, one)
  assert result.dtype == jnp.bfloat16
  assert result == 1


@pytest.mark.parametrize("gamma", [1.0, -0.1, float("nan")])
def test_impossible_weights_are_refused(gamma):
  with pytest.raises(ValueError, match=f"gamma={gamma} must be in"):
    fs.weighted(gamma)
