"""Ascent in several steps, against an independent loop on 1/2 w'Aw."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from meshes import data_mesh

import forgetsam as fs

A = np.array([[3.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 1.0]])
W = np.array([1.0, -2.0, 0.5])
RHO = 0.7
MASK = {"a": False, "b": True}


def tree(w):
  w = jnp.asarray(w, jnp.float32)
  return {"a": w[:1], "b": w[1:]}


def vector(params):
  return np.concatenate([params["a"], params["b"]])


def grad_fn(params):
  w = jnp.concatenate([params["a"], params["b"]])
  return tree(jnp.asarray(A, jnp.float32) @ w)


def offset(perturbation, count=0):
  params = tree(W)
  state = perturbation.init(params)
  for _ in range(count + 1):
    delta, state = perturbation.update(
      grad_fn(params), state, params, ascent_fn=grad_fn
    )
  return vector(delta)


def by_hand(direction, steps, rho=RHO):
  delta = np.zeros(3)
  for _ in range(steps):
    delta = delta + rho / steps * direction(W + delta)
  return delta


def normalised(x):
  return x / np.sqrt(np.sum(x * x))


@pytest.mark.parametrize("steps", [2, 3, 8])
def test_sam_on_a_quadratic(steps):
  expected = by_hand(lambda w: normalised(A @ w), steps)
  delta = offset(fs.multi_step(fs.sam(RHO), steps))
  np.testing.assert_allclose(delta, expected, rtol=1e-5)
  assert np.linalg.norm(delta) < RHO
  # The path bends: one step is another offset.
  assert np.abs(delta - offset(fs.sam(RHO))).max() > 0.01


def test_asam_takes_magnitudes_at_the_intermediate_points():
  def direction(w):
    t = np.abs(w) + 0.1
    return t * t * (A @ w) / np.linalg.norm(t * (A @ w))

  delta = offset(fs.multi_step(fs.asam(RHO, eta=0.1), 3))
  np.testing.assert_allclose(delta, by_hand(direction, 3), rtol=1e-5)


@pytest.mark.parametrize(
  "perturbation",
  [
    fs.sam(RHO),
    fs.asam(RHO),
    fs.random_perturbation(RHO, 0),
    fs.only(fs.sam(RHO), MASK),
    optax.chain(optax.clip(1.0), fs.sam(RHO)),
  ],
)
def test_one_step_is_the_perturbation_bit_for_bit(perturbation):
  single = fs.multi_step(perturbation, 1)
  np.testing.assert_array_equal(offset(single), offset(perturbation))
  # ... and takes no other pass.
  params = tree(W)
  delta, _ = single.update(grad_fn(params), single.init(params), params)
  np.testing.assert_array_equal(vector(delta), offset(perturbation))


def test_only_works_inside_and_outside():
  def direction(w):
    g = A @ w
    return np.concatenate([[0.0], normalised(g[1:])])

  expected = by_hand(direction, 3)
  inside = offset(fs.multi_step(fs.only(fs.sam(RHO), MASK), 3))
  outside = offset(fs.only(fs.multi_step(fs.sam(RHO), 3), MASK))
  for delta in (inside, outside):
    assert delta[0] == 0
    np.testing.assert_allclose(delta, expected, rtol=1e-5)


def test_a_chain_inside_is_applied_at_every_step():
  perturbation = fs.multi_step(
    optax.chain(optax.clip(1.0), fs.scale_to_radius(RHO)), 3
  )
  expected = by_hand(lambda w: normalised(np.clip(A @ w, -1, 1)), 3)
  np.testing.assert_allclose(offset(perturbation), expected, rtol=1e-5)


def test_around_partition_each_group_keeps_its_radius():
  perturbation = fs.multi_step(
    optax.partition({"x": fs.sam(0.3), "y": fs.sam(RHO)}, {"a": "x", "b": "y"}),
    2,
  )

  def direction(w):
    g = A @ w
    return np.concatenate([0.3 * normalised(g[:1]), RHO * normalised(g[1:])])

  expected = by_hand(direction, 2, rho=1.0)
  np.testing.assert_allclose(offset(perturbation), expected, rtol=1e-5)


def test_a_schedule_counts_updates_and_not_steps():
  perturbation = fs.multi_step(fs.sam(lambda count: 0.1 * (1.0 + count)), 4)
  for count in range(3):
    expected = by_hand(lambda w: normalised(A @ w), 4, rho=0.1 * (1 + count))
    np.testing.assert_allclose(offset(perturbation, count), expected, rtol=1e-5)
  state = perturbation.init(tree(W))
  _, state = perturbation.update(
    grad_fn(tree(W)), state, tree(W), ascent_fn=grad_fn
  )
  assert state.count == 1


def test_a_random_perturbation_is_the_same_in_all_steps():
  random = fs.random_perturbation(RHO, 0)
  np.testing.assert_allclose(
    offset(fs.multi_step(random, 3)), offset(random), rtol=1e-6
  )


def test_passes_are_counted_by_steps():
  calls = []

  def ascent_fn(params):
    calls.append(vector(params))
    return grad_fn(params)

  params = tree(W)
  perturbation = fs.multi_step(fs.sam(RHO), 3)
  perturbation.update(
    grad_fn(params), perturbation.init(params), params, ascent_fn=ascent_fn
  )
  assert len(calls) == 2
  np.testing.assert_allclose(
    calls[0], W + RHO / 3 * normalised(A @ W), rtol=1e-5
  )


def test_through_perturbed_gradient_inside_jit():
  transform = fs.perturbed_gradient(fs.multi_step(fs.sam(RHO), 3))
  params = tree(W)

  @jax.jit
  def update(params, state):
    # The ascent objective is another one: OBF in place of the loss.
    ascent_fn = lambda p: jax.tree.map(jnp.tanh, p)  # noqa: E731
    return transform.update(
      ascent_fn(params), state, params, grad_fn=grad_fn, ascent_fn=ascent_fn
    )

  grads, state = update(params, transform.init(params))
  delta = by_hand(lambda w: normalised(np.tanh(w)), 3)
  np.testing.assert_allclose(vector(grads), A @ (W + delta), rtol=1e-5)
  np.testing.assert_allclose(
    state.perturbation_norm, np.linalg.norm(delta), rtol=1e-5
  )


@pytest.mark.parametrize("devices", [1, 2])
def test_through_the_train_step(devices):
  """Every micro-batch climbs its own objective, on any number of devices."""
  images = jax.random.normal(jax.random.key(0), (8, 3))
  labels = jnp.arange(8) % 2
  params = {"kernel": jax.random.normal(jax.random.key(1), (3, 2))}
  loss, signal = fs.softmax_cross_entropy(), fs.output_bias_forgetting()

  def forward(params, model_state, images, *, train, key):
    return images @ params["kernel"], model_state

  mesh = data_mesh(devices)
  optimizer = optax.sgd(1.0)
  perturb = fs.perturbed_gradient(fs.multi_step(fs.sam(RHO), 2))
  step = fs.make_train_step(
    forward,
    loss=loss,
    optimizer=optimizer,
    ascent=signal,
    perturb=perturb,
    micro_batch_size=4,
    mesh=mesh,
  )
  state = fs.create_train_state(params, {}, optimizer, perturb, mesh)
  state, _ = step(state, {"image": images, "label": labels}, jax.random.key(0))

  grads = []
  for part in (slice(0, 4), slice(4, 8)):
    x, y = images[part], labels[part]
    w, delta = params["kernel"], jnp.zeros((3, 2))
    for _ in range(2):
      g = x.T @ signal(x @ (w + delta), y)
      delta = delta + RHO / 2 * g / jnp.linalg.norm(g)
    grads.append(jax.grad(lambda w, x=x, y=y: loss(x @ w, y))(w + delta))
  expected = params["kernel"] - sum(grads) / 2
  np.testing.assert_allclose(state.params["kernel"], expected, rtol=1e-5)


def test_low_precision_is_climbed_in_float32():
  params = {"w": jnp.full((2,), 256.0, jnp.bfloat16)}
  seen = []

  def ascent_fn(p):
    seen.append(p["w"])
    return {"w": jnp.ones((2,), jnp.float32)}

  perturbation = fs.multi_step(fs.sam(0.01), 2)
  grads = {"w": jnp.ones((2,), jnp.bfloat16)}
  delta, _ = perturbation.update(
    grads, perturbation.init(params), params, ascent_fn=ascent_fn
  )
  # In bfloat16, 256 + 0.0035 would be 256.
  np.testing.assert_allclose(seen[0] - 256, 0.005 / np.sqrt(2), rtol=2e-2)
  assert delta["w"].dtype == jnp.bfloat16
  np.testing.assert_allclose(
    delta["w"].astype(jnp.float32), 0.01 / np.sqrt(2), rtol=1e-2
  )


def test_what_is_missing_is_named():
  params = tree(W)
  perturbation = fs.multi_step(fs.sam(RHO), 2)
  state = perturbation.init(params)
  with pytest.raises(ValueError, match=r"steps=2 needs ascent_fn"):
    perturbation.update(grad_fn(params), state, params)
  with pytest.raises(ValueError, match=r"steps=2 needs params"):
    perturbation.update(grad_fn(params), state, ascent_fn=grad_fn)
  transform = fs.perturbed_gradient(perturbation)
  with pytest.raises(ValueError, match=r"grad_fn=grad_fn, ascent_fn=ascent_fn"):
    transform.update(
      grad_fn(params), transform.init(params), params, grad_fn=grad_fn
    )


@pytest.mark.parametrize("steps", [0, -1, True])
def test_impossible_steps_are_refused(steps):
  with pytest.raises(ValueError, match=f"steps={steps} must be an integer"):
    fs.multi_step(fs.sam(RHO), steps)
