"""Numbers at the edge of float32, low precision, and what fits in memory."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import forgetsam as fs


def _forward(params, model_state, x, *, train, key):
  h = jnp.tanh(x.astype(params["a"].dtype) @ params["a"])
  return h @ params["c"], model_state


def _step(how, params, x, y, *, scale=1.0, m=2, rho=0.1):
  def loss(outputs, labels):
    return scale * jnp.mean((outputs - labels).astype(jnp.float32) ** 2)

  perturb = fs.perturbed_gradient(fs.sam(rho))
  optimizer = optax.sgd(1.0 / scale)
  step = fs.make_train_step(
    _forward,
    loss=loss,
    optimizer=optimizer,
    perturb=perturb,
    micro_batch_size=m,
    m_sharpness=how,
  )
  state = fs.create_train_state(params, {}, optimizer, perturb)
  new, metrics = step(state, {"image": x, "label": y}, jax.random.key(0))
  moved = jax.tree.map(jnp.subtract, params, new.params)
  return jnp.concatenate([g.ravel() for g in jax.tree.leaves(moved)]), metrics


def _data(n=8, dtype=jnp.float32):
  rng = np.random.RandomState(0)
  params = {
    "a": jnp.asarray(rng.randn(24, 32) / 5, dtype),
    "c": jnp.asarray(rng.randn(32, 24) / 5, dtype),
  }
  x, y = rng.randn(2, n, 24).astype(np.float32)
  return params, x, y


def _relative(found, expected):
  found, expected = (np.asarray(x, np.float64) for x in (found, expected))
  return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("scale", [1e-24, 1e-12, 1.0, 1e16])
def test_tiny_and_huge_cotangents(scale):
  params, x, y = _data()
  found, metrics = _step("factored", params, x, y, scale=scale)
  expected, right = _step("loop", params, x, y, scale=scale)
  assert _relative(found, expected) < 1e-5
  assert float(metrics["perturbation_norm"]) == pytest.approx(0.1, rel=1e-5)
  assert float(metrics["ascent_grad_norm"]) == pytest.approx(
    float(right["ascent_grad_norm"]), rel=1e-5
  )


@pytest.mark.parametrize("apart", [1e-2, 1e-3, 1e-4])
def test_examples_whose_gradients_nearly_cancel(apart):
  params, x, y = _data(4)
  # Two examples on either side of what the network says, almost the same.
  x[1::2] = x[::2] * (1 + apart)
  outputs = np.asarray(_forward(params, {}, x, train=True, key=None)[0])
  y[::2], y[1::2] = outputs[::2] + 1, outputs[1::2] - 1
  found, _ = _step("factored", params, x, y)
  expected, _ = _step("loop", params, x, y)
  assert _relative(found, expected) < 2e-3 * 1e-4 / apart + 1e-5


def test_a_zero_gradient_gives_no_offset():
  params, x, y = _data()
  params["c"], y = jnp.zeros_like(params["c"]), np.zeros_like(y)
  found, metrics = _step("factored", params, x, y)
  assert float(metrics["perturbation_norm"]) == 0
  assert float(jnp.abs(found).max()) == 0


def test_low_precision_parameters_are_moved_in_float32():
  params, x, y = _data(dtype=jnp.bfloat16)
  found, _ = _step("factored", params, x, y)
  expected, _ = _step("loop", params, x, y)
  assert found.dtype == jnp.bfloat16
  assert _relative(found, expected) < 1e-2  # two units of bfloat16


def _compiled(how, n, m, **options):
  params, x, y = _data(n)
  perturb = fs.perturbed_gradient(fs.sam(0.1))
  step = fs.make_train_step(
    _forward,
    loss=lambda outputs, labels: jnp.mean((outputs - labels) ** 2),
    optimizer=optax.sgd(1.0),
    perturb=perturb,
    micro_batch_size=m,
    m_sharpness=how,
    **options,
  )
  state = fs.create_train_state(params, {}, optax.sgd(1.0), perturb)
  batch = {"image": x, "label": y}
  return step, state, batch


def test_a_chunk_bounds_memory():
  step, state, batch = _compiled("factored", 4096, 64, m_sharpness_chunk=128)
  small = step.lower(state, batch, jax.random.key(0)).compile()
  assert step.m_sharpness(state, batch).chunk == 128
  step, state, batch = _compiled("factored", 4096, 64)
  whole = step.lower(state, batch, jax.random.key(0)).compile()
  assert step.m_sharpness(state, batch).chunk == 4096
  few, all_ = (c.memory_analysis().temp_size_in_bytes for c in (small, whole))
  assert few < all_ / 8


@pytest.mark.parametrize("chunk", [3, 96])
def test_a_chunk_that_does_not_divide_is_refused(chunk):
  step, state, batch = _compiled("factored", 256, 2, m_sharpness_chunk=chunk)
  with pytest.raises(
    ValueError, match=rf"m_sharpness_chunk={chunk} .*multiple"
  ):
    step.m_sharpness(state, batch)


def test_unknown_modes_are_refused():
  with pytest.raises(ValueError, match=r"m_sharpness='fast' .*auto"):
    _compiled("fast", 8, 2)


def _choice(name, shape, m, batch):
  module = fs.models.create(name, num_classes=10)
  params, model_state = fs.models.initialise(module, jax.random.key(0), shape)
  perturb = fs.perturbed_gradient(fs.sam(0.1))
  step = fs.make_train_step(
    fs.models.forward(module),
    loss=fs.sigmoid_cross_entropy(),
    optimizer=optax.sgd(1.0),
    perturb=perturb,
    micro_batch_size=m,
    m_sharpness="auto",
  )
  state = fs.create_train_state(params, model_state, optax.sgd(1.0), perturb)
  images, labels = np.zeros((batch, *shape), np.float32), np.zeros(batch, int)
  return step.m_sharpness(state, {"image": images, "label": labels})


@pytest.mark.parametrize(
  ("name", "shape", "m", "batch", "how"),
  [
    ("mlp", (28, 28, 1), 1, 128, "factored"),
    ("mlp", (28, 28, 1), 8, 128, "factored"),
    ("mlp", (28, 28, 1), 32, 128, "factored"),
    ("mlp", (28, 28, 1), 128, 128, "loop"),
    ("vit_tiny", (8, 8, 1), 1, 64, "factored"),
    ("vit_tiny", (8, 8, 1), 8, 64, "factored"),
    ("cnn", (8, 8, 1), 32, 64, "factored"),
  ],
)
def test_what_auto_takes_on_a_cpu(name, shape, m, batch, how):
  found = _choice(name, shape, m, batch)
  assert found.how == how, found.reason
  assert found.chunk == (batch if how == "factored" else m)
