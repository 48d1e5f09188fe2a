"""Perturbing from one step to another, and paying for no ascent outside."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from meshes import data_mesh

import forgetsam as fs

A = np.array([[3.0, 1.0], [1.0, 2.0]])
W = np.array([1.0, -2.0])
PARAMS = {"w": jnp.asarray(W, jnp.float32)}
UNIT = A @ W / np.linalg.norm(A @ W)


def grad_fn(params):
  return {"w": jnp.asarray(A, jnp.float32) @ params["w"]}


def offsets(perturbation, steps=5, ascent_fn=grad_fn):

  @jax.jit
  def update(state):
    return perturbation.update(
      grad_fn(PARAMS), state, PARAMS, ascent_fn=ascent_fn
    )

  state = perturbation.init(PARAMS)
  deltas = []
  for _ in range(steps):
    delta, state = update(state)
    deltas.append(delta["w"])
  return np.array(deltas), state


@pytest.mark.parametrize("ascent_fn", [grad_fn, None])
@pytest.mark.parametrize(
  ("start", "stop", "active"),
  [(0, 2, "11000"), (2, None, "00111"), (1, 3, "01100"), (0, None, "11111")],
)
def test_zero_outside_and_the_perturbation_inside(
  start, stop, active, ascent_fn
):
  rho = lambda count: 0.1 * (1.0 + count)  # noqa: E731
  deltas, state = offsets(
    fs.active_between(fs.sam(rho), start, stop), ascent_fn=ascent_fn
  )
  # The schedule counts all steps, also those that do not perturb.
  expected = [int(on) * rho(t) * UNIT for t, on in enumerate(active)]
  np.testing.assert_allclose(deltas, expected, rtol=1e-5)
  assert state.count == 5
  assert state.perturbation.count == 5


def test_the_defaults_are_the_perturbation_bit_for_bit():
  deltas, _ = offsets(fs.active_between(fs.sam(0.3)))
  np.testing.assert_array_equal(deltas, offsets(fs.sam(0.3))[0])


def test_what_does_not_read_the_gradient_rests_too():
  deltas, _ = offsets(fs.active_between(fs.random_perturbation(0.5, 0), 2, 4))
  norms = np.linalg.norm(deltas, axis=1)
  np.testing.assert_allclose(norms, [0, 0, 0.5, 0.5, 0], rtol=1e-5)


def test_memory_waits_for_the_next_active_step():
  deltas, state = offsets(
    fs.active_between(fs.friendly_sam(0.3, sigma=0.5), 0, 2)
  )
  mean = state.perturbation[0].mean["w"]
  np.testing.assert_allclose(mean, A @ W, rtol=1e-6)  # and not decayed
  np.testing.assert_allclose(deltas[:2], 0.3 * np.stack([UNIT] * 2), rtol=1e-5)


@pytest.mark.parametrize(
  ("perturbation", "passes"),
  [
    (fs.sam(0.3), [2, 3]),
    (fs.multi_step(fs.sam(0.3), 2), [2, 2, 3, 3]),
    # Ascends at once where it becomes active, and then by its own clock.
    (fs.every_k(fs.sam(0.3), 3), [2, 3]),
  ],
)
def test_passes_run_inside_only(perturbation, passes):
  calls = []
  perturbation = fs.active_between(perturbation, 2, 4)

  def gradient(point, count):
    calls.append(int(count))
    return A.astype(np.float32) @ point

  @jax.jit
  def update(state):
    def ascent_fn(params):
      shape = jax.ShapeDtypeStruct((2,), jnp.float32)
      w = jax.pure_callback(gradient, shape, params["w"], state.count)
      return {"w": w}

    return perturbation.update(PARAMS, state, PARAMS, ascent_fn=ascent_fn)

  state = perturbation.init(PARAMS)
  for _ in range(6):
    _, state = update(state)
  jax.block_until_ready(state)
  assert calls == passes


def test_late_start_of_every_k_keeps_the_direction():
  perturbation = fs.active_between(fs.every_k(fs.sam(0.3), 2), 1, 4)
  deltas, _ = offsets(perturbation)
  expected = np.outer([0, 1, 1, 1, 0], 0.3 * UNIT)
  np.testing.assert_allclose(deltas, expected, rtol=1e-5)


def test_first_in_a_chain_it_is_plain_training_outside():
  optimizer = optax.chain(
    fs.perturbed_gradient(fs.active_between(fs.sam(0.5), 1, 2)), optax.sgd(0.1)
  )
  params, state, w = PARAMS, optimizer.init(PARAMS), W
  for t in range(3):
    updates, state = optimizer.update(
      grad_fn(params), state, params, grad_fn=grad_fn, ascent_fn=grad_fn
    )
    params = optax.apply_updates(params, updates)
    g = A @ w
    w = w - 0.1 * A @ (w + (t == 1) * 0.5 * g / np.linalg.norm(g))
    np.testing.assert_allclose(params["w"], w, rtol=1e-5)


def test_in_the_train_step_on_eight_devices():
  mesh = data_mesh()
  images = jax.random.normal(jax.random.key(0), (8, 3))
  batch = {"image": images, "label": jnp.arange(8) % 2}
  params = {"kernel": jax.random.normal(jax.random.key(1), (3, 2))}

  def forward(params, model_state, images, *, train, key):
    return images @ params["kernel"], model_state

  def run(perturb, steps):
    optimizer = optax.sgd(0.5)
    step = fs.make_train_step(
      forward,
      loss=fs.softmax_cross_entropy(),
      optimizer=optimizer,
      perturb=perturb,
      micro_batch_size=1,
      mesh=mesh,
    )
    state = fs.create_train_state(params, {}, optimizer, perturb, mesh)
    results = []
    for _ in range(steps):
      state, metrics = step(state, batch, jax.random.key(0))
      results.append((np.array(state.params["kernel"]), metrics))
    return results

  plain, sam = run(None, 1), run(fs.perturbed_gradient(fs.sam(0.5)), 1)
  late = run(fs.perturbed_gradient(fs.active_between(fs.sam(0.5), 1)), 2)
  early = run(fs.perturbed_gradient(fs.active_between(fs.sam(0.5), 0, 1)), 2)
  np.testing.assert_allclose(late[0][0], plain[0][0], rtol=1e-5, atol=1e-7)
  np.testing.assert_allclose(early[0][0], sam[0][0], rtol=1e-5, atol=1e-7)
  norms = [[float(m["perturbation_norm"]) for _, m in r] for r in (late, early)]
  np.testing.assert_allclose(norms, [[0, 0.5], [0.5, 0]], rtol=1e-5)
  assert "ascent_grad_norm" not in late[0][1]


def test_impossible_intervals_are_refused():
  with pytest.raises(ValueError, match="start=-1 must be an integer of at le"):
    fs.active_between(fs.sam(0.1), start=-1)
  with pytest.raises(ValueError, match=r"stop=3 .* start=3"):
    fs.active_between(fs.sam(0.1), start=3, stop=3)
  perturbation = fs.active_between(fs.sam(0.1))
  with pytest.raises(ValueError, match="active_between with ascent_fn needs"):
    perturbation.update(PARAMS, perturbation.init(PARAMS), ascent_fn=grad_fn)
