"""Extremes: zero, huge, tiny and low-precision gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import forgetsam as fs
from forgetsam._arrays import tree_dot, tree_norm

READING = {
  "sam": lambda rho: fs.sam(rho),
  "asam_before": lambda rho: fs.asam(rho, magnitude="before"),
  "asam_after": lambda rho: fs.asam(rho, magnitude="after"),
  "asam_both": lambda rho: fs.asam(rho, eta=0.01),
  "only": lambda rho: fs.only(fs.sam(rho), {"w": True, "b": False}),
}


def params_like(dtype=jnp.float32):
  return {
    "w": jax.random.normal(jax.random.key(0), (5, 3)).astype(dtype),
    "b": jnp.full((3,), 0.5, dtype),
  }


@pytest.mark.parametrize("name", READING)
@pytest.mark.parametrize(
  "combine", [None, fs.surrogate_gap(0.3), fs.surrogate_gap(0.3, True)]
)
def test_a_zero_ascent_gradient_gives_a_zero_offset(name, combine):
  params = params_like()
  zeros = jax.tree.map(jnp.zeros_like, params)
  transform = fs.perturbed_gradient(READING[name](0.1), combine)
  grads, state = transform.update(
    zeros, transform.init(params), params, grad_fn=lambda p: p
  )
  assert state.perturbation_norm == 0
  for key in params:
    np.testing.assert_allclose(grads[key], params[key], rtol=1e-6)
  # ... and finite where the descent gradient vanishes as well.
  grads, _ = transform.update(
    zeros, state, params, grad_fn=lambda p: jax.tree.map(jnp.zeros_like, p)
  )
  assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(grads))


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-16, 1.0, 1e16, 1e19, 1e30])
def test_the_offset_has_length_rho_for_huge_and_tiny_gradients(scale):
  params = params_like()
  direction = jax.tree.map(lambda w: w + 1, params)
  grads = jax.tree.map(lambda d: d * jnp.float32(scale), direction)
  perturbation = fs.sam(0.25)
  delta, _ = perturbation.update(grads, perturbation.init(params))
  flat = np.concatenate([np.ravel(x) for x in jax.tree.leaves(direction)])
  expected = 0.25 / np.linalg.norm(flat.astype(np.float64))
  # 1e-38 times small entries is subnormal, which the CPU flushes to zero.
  tolerance = 0.2 if scale < 1e-37 else 1e-5
  for key in params:
    np.testing.assert_allclose(
      delta[key], expected * direction[key], rtol=tolerance, atol=tolerance
    )


def test_norm_of_extreme_trees():
  assert tree_norm({}) == 0
  assert tree_norm({"x": jnp.zeros(3)}) == 0
  for scale in (1e-30, 1.0, 1e30):
    tree = {"x": jnp.array([3.0]) * scale, "y": jnp.array([4.0]) * scale}
    np.testing.assert_allclose(tree_norm(tree), 5 * scale, rtol=1e-6)
  assert not np.isfinite(tree_norm({"x": jnp.array([1.0, jnp.inf])}))
  assert np.isnan(tree_norm({"x": jnp.array([1.0, jnp.nan])}))


def test_norms_of_low_precision_trees_are_taken_in_float32():
  ones = jnp.ones((300, 300), jnp.bfloat16)  # a bfloat16 sum stops at 256
  np.testing.assert_allclose(tree_norm(ones), 300.0, rtol=1e-6)
  np.testing.assert_allclose(tree_dot(ones, ones), 90000.0, rtol=1e-6)
  assert tree_norm(ones).dtype == jnp.float32
  big = jnp.full((4,), 300.0, jnp.float16)  # its square overflows float16
  np.testing.assert_allclose(tree_norm(big), 600.0, rtol=1e-6)


def test_the_plain_sum_pays_no_rescaling():
  """The maximum is taken in the branch alone, not on the way."""
  jaxpr = jax.make_jaxpr(tree_norm)({"x": jnp.ones(3), "y": jnp.ones(3)})
  outside = [equation.primitive.name for equation in jaxpr.eqns]
  assert outside.count("reduce_sum") == 2
  assert outside.count("cond") == 1
  assert "reduce_max" not in outside
  assert "div" not in outside


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_leaves_are_perturbed_in_float32(dtype):
  params = {"w": jnp.full((4,), 256.0, dtype)}
  seen = {}

  def grad_fn(p):
    seen["dtype"], seen["w"] = p["w"].dtype, p["w"]
    return {"w": p["w"] * 1e-3}

  transform = fs.perturbed_gradient(fs.sam(0.01))
  ones = {"w": jnp.ones((4,), dtype)}
  grads, state = transform.update(
    ones, transform.init(params), params, grad_fn=grad_fn
  )
  assert seen["dtype"] == jnp.float32
  # In its own precision, 256 + 0.005 would round to 256.
  np.testing.assert_allclose(seen["w"] - 256.0, 0.005, rtol=1e-2)
  assert grads["w"].dtype == dtype
  np.testing.assert_allclose(state.perturbation_norm, 0.01, rtol=1e-2)


@pytest.mark.parametrize("name", [*READING, "random"])
def test_rho_zero_is_the_plain_gradient_bit_for_bit(name):
  factory = READING.get(name, lambda rho: fs.random_perturbation(rho, 0))
  params = params_like()
  x = jax.random.normal(jax.random.key(1), (7, 5))

  def loss(p):
    return jnp.mean(jnp.tanh(x @ p["w"] + p["b"]) ** 2)

  def step(p):
    transform = fs.perturbed_gradient(factory(0.0))
    ascent = jax.grad(loss)(p)
    return transform.update(
      ascent, transform.init(p), p, grad_fn=jax.grad(loss)
    )[0]

  plain, perturbed = jax.grad(loss)(params), step(params)
  for key in params:
    np.testing.assert_array_equal(plain[key], perturbed[key])
