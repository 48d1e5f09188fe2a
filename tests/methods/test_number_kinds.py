"""Methods on complex and narrow numbers, and where the ascent vanishes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import forgetsam as fs

pytestmark = pytest.mark.long

A = jnp.array([[5.0, 1.0, 0, 1], [1, 3, 1, 0], [0, 1, 2, 1], [1, 0, 1, 1]])
X = jnp.array([0.5, -1.0, 0.8, 2.0])
START = jnp.array([1.0, 2.0, -1.0, 0.5])


def pair(x):
  return jax.lax.complex(x[..., :2], x[..., 2:])


def parts(z):
  return jnp.concatenate([z.real, z.imag], -1)


def loss(x):
  return 0.5 * jnp.sum(x * (A @ x)) + 0.1 * jnp.sum(x**4)


def of_complex(z):
  value, g = jax.value_and_grad(lambda z: loss(parts(z)))(z)
  return value, jnp.conj(g)


def of_wide(x):
  return jax.value_and_grad(loss)(x.astype(jnp.float32))


def eigen_sam(start):
  perturbation = fs.eigen_sam(0.1, 0.3, freq=1, steps=4)
  return optax.GradientTransformationExtraArgs(
    lambda params: perturbation.init(params)._replace(eigenvector=start),
    perturbation.update,
  )


METHODS = {
  "eigen_sam": lambda start: fs.perturbed_gradient(eigen_sam(start)),
  "gam": lambda _: fs.gam(fs.sam(0.1), 0.2),
  "lookbehind": lambda _: fs.lookbehind(fs.sam(0.1), 2),
  "layer_sam": lambda _: fs.perturbed_gradient(fs.layer_sam(0.1)),
  "polyak_step": lambda _: fs.perturbed_gradient(fs.sam(0.1), fs.polyak_step()),
  "stable_sam": lambda _: fs.perturbed_gradient(fs.sam(0.1), fs.stable_sam()),
  "xsam": lambda _: fs.perturbed_gradient(
    fs.sam(0.1), fs.xsam(0.2, update_every=1)
  ),
}


def second(transform, functions, w, ascent=1.0):
  """The result of the second update."""
  grad_fn = lambda p: functions(p)[1]  # noqa: E731
  ascent_fn = lambda p: ascent * grad_fn(p)  # noqa: E731
  state = transform.init(w)
  for _ in range(2):
    result, state = transform.update(
      ascent_fn(w).astype(w.dtype),
      state,
      w,
      grad_fn=grad_fn,
      ascent_fn=ascent_fn,
      value_and_grad_fn=functions,
    )
  return result


@pytest.mark.parametrize("name", METHODS)
def test_a_complex_number_is_its_two_parts(name):
  make = METHODS[name]
  found = second(make(pair(START)), of_complex, pair(X))
  expected = second(make(START), jax.value_and_grad(loss), X)
  np.testing.assert_allclose(parts(found), expected, rtol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_bfloat16_is_rounded_at_the_end_alone(name):
  w = X.astype(jnp.bfloat16)
  found = second(METHODS[name](START), of_wide, w)
  assert found.dtype == jnp.bfloat16
  expected = second(METHODS[name](START), of_wide, w.astype(jnp.float32))
  np.testing.assert_allclose(
    found.astype(jnp.float32), expected, rtol=0.05, atol=0.05
  )


@pytest.mark.parametrize("name", METHODS)
def test_without_an_ascent_gradient_the_result_is_finite(name):
  assert np.isfinite(second(METHODS[name](START), of_wide, X, 0.0)).all()
