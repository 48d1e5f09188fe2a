"""One ascent gradient for k steps, on 1/2 w'Aw and in the train step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from meshes import data_mesh

import forgetsam as fs

A = np.array([[3.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 1.0]])
RHO = 0.7
POINTS = np.array(
  [[1.0, -2.0, 0.5], [0.3, 1.0, -1.0], [-1.0, 0.2, 2.0], [2.0, 2.0, -0.5]]
)


def grad_fn(params):
  return {"w": jnp.asarray(A, jnp.float32) @ params["w"]}


def tree(w):
  return {"w": jnp.asarray(w, jnp.float32)}


def normalised(x):
  return x / np.sqrt(np.sum(x * x))


def offsets(perturbation, points=POINTS, ascent_fn=grad_fn):
  """The offsets along a path of weights."""

  @jax.jit
  def update(w, state):
    return perturbation.update(
      grad_fn(tree(w)), state, tree(w), ascent_fn=ascent_fn
    )

  state = perturbation.init(tree(points[0]))
  deltas = []
  for w in points:
    delta, state = update(w, state)
    deltas.append(delta["w"])
  return np.array(deltas), state


@pytest.mark.parametrize("ascent_fn", [grad_fn, None])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_direction_lasts_k_steps(k, ascent_fn):
  deltas, state = offsets(fs.every_k(fs.sam(RHO), k), ascent_fn=ascent_fn)
  expected = [RHO * normalised(A @ POINTS[t - t % k]) for t in range(4)]
  np.testing.assert_allclose(deltas, expected, rtol=1e-5)
  assert state.count == 4
  assert jnp.issubdtype(state.count.dtype, jnp.integer)


def test_the_pass_is_skipped_in_between():
  calls = []

  def ascent_fn(params):
    def record(w):
      calls.append(w)
      return A.astype(np.float32) @ w

    shape = jax.ShapeDtypeStruct((3,), jnp.float32)
    return {"w": jax.pure_callback(record, shape, params["w"])}

  perturbation = fs.every_k(fs.sam(RHO), 3)

  @jax.jit
  def update(w, state):
    return perturbation.update(tree(w), state, tree(w), ascent_fn=ascent_fn)

  state = perturbation.init(tree(POINTS[0]))
  for t in range(7):
    _, state = update(POINTS[t % 4], state)
  jax.block_until_ready(state)
  np.testing.assert_allclose(calls, POINTS[[0, 3, 2]], rtol=1e-6)


def test_a_schedule_counts_steps_and_magnitudes_are_current():
  rho = lambda count: 0.1 * (1.0 + count)  # noqa: E731
  deltas, _ = offsets(fs.every_k(fs.asam(rho), 4))
  expected = []
  for t, w in enumerate(POINTS):
    scaled = np.abs(w) * (A @ POINTS[0])
    expected.append(rho(t) * np.abs(w) * normalised(scaled))
  np.testing.assert_allclose(deltas, expected, rtol=1e-5)


def test_while_there_is_no_direction_every_step_ascends():
  points = np.concatenate([np.zeros((2, 3)), POINTS])
  deltas, _ = offsets(fs.every_k(fs.sam(RHO), 4), points)
  np.testing.assert_array_equal(deltas[:2], 0)
  expected = [RHO * normalised(A @ points[t]) for t in (2, 2, 4, 4)]
  np.testing.assert_allclose(deltas[2:], expected, rtol=1e-5)


@pytest.mark.parametrize("inside", [True, False])
def test_with_only_the_norm_runs_over_the_chosen(inside):
  def vector_fn(params):
    w = jnp.concatenate([params["a"], params["b"]])
    g = jnp.asarray(A, jnp.float32) @ w
    return {"a": g[:1], "b": g[1:]}

  mask = {"a": False, "b": True}
  sam = fs.sam(RHO)
  perturbation = (
    fs.every_k(fs.only(sam, mask), 2)
    if inside
    else fs.only(fs.every_k(sam, 2), mask)
  )
  params = {"a": jnp.ones(1), "b": jnp.ones(2)}
  state = perturbation.init(params)
  for scale in (1.0, -1.0):
    w = jax.tree.map(lambda x, s=scale: s * x, params)
    delta, state = perturbation.update(
      vector_fn(w), state, w, ascent_fn=vector_fn
    )
    np.testing.assert_array_equal(delta["a"], 0)
    expected = RHO * normalised((A @ np.ones(3))[1:])
    np.testing.assert_allclose(delta["b"], expected, rtol=1e-5)


def test_first_in_a_chain():
  optimizer = optax.chain(
    fs.perturbed_gradient(fs.every_k(fs.sam(RHO), 2)), optax.sgd(0.1)
  )
  params = tree(POINTS[0])
  state, w, g = optimizer.init(params), POINTS[0], None
  for t in range(4):
    updates, state = optimizer.update(
      grad_fn(params), state, params, grad_fn=grad_fn, ascent_fn=grad_fn
    )
    params = optax.apply_updates(params, updates)
    g = A @ w if t % 2 == 0 else g
    w = w - 0.1 * A @ (w + RHO * normalised(g))
    np.testing.assert_allclose(params["w"], w, rtol=1e-4)


LOSS = fs.softmax_cross_entropy()
IMAGES = jax.random.normal(jax.random.key(0), (16, 3))
LABELS = jnp.arange(16) % 2
KERNEL = jax.random.normal(jax.random.key(1), (3, 2))


def forward(params, model_state, images, *, train, key):
  return images @ params["kernel"], model_state


@pytest.mark.parametrize(("devices", "unrolled"), [(2, False), (8, True)])
def test_micro_batches_share_their_mean_direction_in_between(
  devices, unrolled, monkeypatch
):
  if not unrolled:
    monkeypatch.setattr("forgetsam.training._micro_batches.MOST_UNROLLED", 1)

  mesh = data_mesh(devices)
  signal, optimizer = fs.output_bias_forgetting(), optax.sgd(0.5)
  perturb = fs.perturbed_gradient(fs.every_k(fs.sam(RHO), 2))
  step = fs.make_train_step(
    forward,
    loss=LOSS,
    optimizer=optimizer,
    ascent=signal,
    perturb=perturb,
    micro_batch_size=2,
    mesh=mesh,
  )
  state = fs.create_train_state(
    {"kernel": KERNEL}, {}, optimizer, perturb, mesh
  )
  batch = {"image": IMAGES, "label": LABELS}
  w, ascents = KERNEL, None
  for t in range(3):
    state, metrics = step(state, batch, jax.random.key(0))
    if t % 2 == 0:
      ascents = []
    grads = []
    for i in range(8):
      x, y = IMAGES[2 * i : 2 * i + 2], LABELS[2 * i : 2 * i + 2]
      if t % 2 == 0:
        ascents.append(x.T @ signal(x @ w, y))
        direction = ascents[-1]
      else:
        direction = sum(ascents) / 8
      delta = RHO * direction / jnp.linalg.norm(direction)
      grads.append(jax.grad(lambda w, x=x, y=y: LOSS(x @ w, y))(w + delta))
    w = w - 0.5 * sum(grads) / 8
    np.testing.assert_allclose(state.params["kernel"], w, rtol=2e-4, atol=1e-6)
    np.testing.assert_allclose(metrics["perturbation_norm"], RHO, rtol=1e-5)
  assert "ascent_grad_norm" not in metrics
  assert state.perturb_state.perturbation.count == 3


def test_low_precision_is_stored_in_float32():
  params = {"w": jnp.ones(2, jnp.bfloat16)}
  perturbation = fs.every_k(fs.sam(RHO), 2)
  state = perturbation.init(params)
  delta, new_state = perturbation.update(params, state, params)
  assert new_state.ascent_grads["w"].dtype == jnp.float32
  assert delta["w"].dtype == jnp.bfloat16


@pytest.mark.parametrize("k", [0, -1, True])
def test_impossible_numbers_of_steps_are_refused(k):
  with pytest.raises(ValueError, match=f"k={k} must be an integer"):
    fs.every_k(fs.sam(RHO), k)


def test_what_does_not_fit_is_named():
  perturbation = fs.every_k(fs.multi_step(fs.sam(RHO), 2), 2)
  params = tree(POINTS[0])
  with pytest.raises(ValueError, match="multi_step or active_between, and"):
    perturbation.update(
      params, perturbation.init(params), params, ascent_fn=grad_fn
    )
  perturbation = fs.every_k(fs.sam(RHO), 2)
  with pytest.raises(ValueError, match="every_k with ascent_fn needs params"):
    perturbation.update(params, perturbation.init(params), ascent_fn=grad_fn)
