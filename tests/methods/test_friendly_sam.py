"""F-SAM's perturbation against the official code's loop by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from meshes import data_mesh

import forgetsam as fs

A = np.array([[3.0, 1.0], [1.0, 2.0]])
RHO = 0.5
POINTS = [[1.0, -2.0], [0.5, 1.0], [-1.0, 3.0], [2.0, 2.0]]


def grad_fn(params):
  return {"w": jnp.asarray(A, jnp.float32) @ params["w"]}


def tree(w):
  return {"w": jnp.asarray(w, jnp.float32)}


def by_hand(gradients, sigma, decay, rho):
  offsets, mean = [], None
  for t, g in enumerate(gradients):
    d = g if mean is None else g - sigma * mean
    mean = g if mean is None else decay * mean + (1 - decay) * g
    offsets.append(rho(t) * d / np.linalg.norm(d))
  return offsets, mean


@pytest.mark.parametrize(("sigma", "decay"), [(1.0, 0.9), (0.6, 0.5)])
def test_the_loop_by_hand(sigma, decay):
  rho = lambda t: 0.1 * (1.0 + t)  # noqa: E731
  perturbation = fs.friendly_sam(rho, sigma, decay)
  gradients = [A @ np.array(w) for w in POINTS]
  offsets, mean = by_hand(gradients, sigma, decay, rho)
  state = perturbation.init(tree(POINTS[0]))
  for g, expected in zip(gradients, offsets, strict=True):
    delta, state = perturbation.update(tree(g), state)
    np.testing.assert_allclose(delta["w"], expected, rtol=1e-5)
  np.testing.assert_allclose(state[0].mean["w"], mean, rtol=1e-5)


def test_for_sigma_one_the_order_of_the_paper_gives_the_same_direction():
  """m_t = 0.9 m_{t-1} + 0.1 g_t first, then g_t - m_t."""
  perturbation = fs.friendly_sam(RHO)
  first, second = (A @ np.array(w) for w in POINTS[:2])
  state = perturbation.init(tree(first))
  _, state = perturbation.update(tree(first), state)
  delta, _ = perturbation.update(tree(second), state)
  d = second - (0.9 * first + 0.1 * second)
  np.testing.assert_allclose(delta["w"], RHO * d / np.linalg.norm(d), rtol=1e-5)


def test_sigma_zero_is_sam_bit_for_bit():
  friendly, sam = fs.friendly_sam(RHO, sigma=0.0), fs.sam(RHO)
  states = friendly.init(tree(POINTS[0])), sam.init(tree(POINTS[0]))
  for w in POINTS:
    one, friendly_state = friendly.update(tree(w), states[0])
    two, sam_state = sam.update(tree(w), states[1])
    states = friendly_state, sam_state
    np.testing.assert_array_equal(one["w"], two["w"])


def test_first_in_a_chain():
  optimizer = optax.chain(
    fs.perturbed_gradient(fs.friendly_sam(RHO)), optax.sgd(0.1)
  )
  params = tree(POINTS[0])
  state, w, gradients = optimizer.init(params), np.array(POINTS[0]), []
  for _ in range(3):
    updates, state = optimizer.update(
      grad_fn(params), state, params, grad_fn=grad_fn
    )
    params = optax.apply_updates(params, updates)
    gradients.append(A @ w)
    delta = by_hand(gradients, 1.0, 0.9, lambda t: RHO)[0][-1]
    w = w - 0.1 * A @ (w + delta)
    np.testing.assert_allclose(params["w"], w, rtol=1e-4)


def test_micro_batches_share_the_mean_of_the_whole_batch():
  """Eight devices with a micro-batch each, against a loop."""
  images = jax.random.normal(jax.random.key(0), (8, 3))
  labels = jnp.arange(8) % 2
  kernel = jax.random.normal(jax.random.key(1), (3, 2))
  loss = fs.softmax_cross_entropy()

  def forward(params, model_state, images, *, train, key):
    return images @ params["kernel"], model_state

  mesh = data_mesh()
  optimizer = optax.sgd(0.5)
  perturb = fs.perturbed_gradient(fs.friendly_sam(RHO))
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

  def gradient(w, i):
    x, y = images[i : i + 1], labels[i : i + 1]
    return jax.grad(lambda w: loss(x @ w, y))(w)

  w, mean = kernel, None
  for t in range(3):
    state, _ = step(
      state, {"image": images, "label": labels}, jax.random.key(0)
    )
    ascents = [gradient(w, i) for i in range(8)]
    average = sum(ascents) / 8
    grads = []
    for i, g in enumerate(ascents):
      d = g - mean if t else g
      grads.append(gradient(w + RHO * d / jnp.linalg.norm(d), i))
    mean = 0.9 * mean + 0.1 * average if t else average
    w = w - 0.5 * sum(grads) / 8
    np.testing.assert_allclose(state.params["kernel"], w, rtol=5e-4, atol=1e-5)


def test_impossible_parameters_are_refused():
  with pytest.raises(ValueError, match=r"decay=1.0 must be in \[0, 1\)"):
    fs.friendly_sam(RHO, decay=1.0)
  with pytest.raises(ValueError, match="sigma=nan must be finite"):
    fs.friendly_sam(RHO, sigma=float("nan"))
  with pytest.raises(ValueError, match="rho=-1"):
    fs.friendly_sam(-1)
