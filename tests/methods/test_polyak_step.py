"""The Polyak step on a quadratic, and its bounds."""

import jax.numpy as jnp
import numpy as np
import pytest

import forgetsam as fs

A = jnp.array([[3.0, 1.0], [1.0, 2.0]])
W = jnp.array([1.0, -2.0])
RHO = 0.3


def value_and_grad_fn(w):
  g = A @ w
  return 0.5 * jnp.sum(w * g), g


def update(rule, w=W):
  transform = fs.perturbed_gradient(fs.sam(RHO), rule)
  g = value_and_grad_fn(w)[1]
  return transform.update(
    g, transform.init(w), w, value_and_grad_fn=value_and_grad_fn
  )


@pytest.mark.parametrize(
  ("f_star", "max_step", "bounded"),
  [(0.5, 9.0, None), (0.0, 0.1, 0.1), (99.0, 9.0, 0.0)],
)
def test_the_step_size_and_its_bounds(f_star, max_step, bounded):
  found, state = update(fs.polyak_step(f_star, max_step))
  delta = RHO * (A @ W) / np.linalg.norm(A @ W)
  point = W + delta
  d = A @ point
  size = (0.5 * point @ d - f_star - d @ delta) / (d @ d)
  size = size if bounded is None else bounded
  np.testing.assert_allclose(found, size * d, rtol=1e-5)
  sizes = state.perturbation.combine.step_size
  np.testing.assert_allclose(sizes, size, rtol=1e-5)


def test_a_minimum_stays():
  found, _ = update(fs.polyak_step(), jnp.zeros(2))
  np.testing.assert_array_equal(found, 0)


def test_what_is_missing_or_impossible_is_named():
  with pytest.raises(ValueError, match="f_star=inf must"):
    fs.polyak_step(float("inf"))
  with pytest.raises(ValueError, match="max_step=-1 must"):
    fs.polyak_step(max_step=-1)
  transform = fs.perturbed_gradient(fs.sam(RHO), fs.polyak_step())
  with pytest.raises(ValueError, match="polyak_step needs value_and_grad_fn"):
    transform.update(W, transform.init(W), W, grad_fn=lambda w: w)
