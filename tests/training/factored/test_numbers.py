"""Numbers at the edge of float32, and parameters of low precision."""

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
