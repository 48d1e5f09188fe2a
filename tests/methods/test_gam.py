"""GAM with another ascent than the loss, and what it refuses."""

import jax.numpy as jnp
import numpy as np
import pytest

import forgetsam as fs

A = jnp.array([[3.0, 1.0], [1.0, 2.0]])
W = jnp.array([1.0, -2.0])
RHO, NORM_RHO, GAMMA = 0.3, 0.2, 0.1


def grad_fn(w):
  return A @ w


def unit(x):
  return x / np.linalg.norm(x)


def test_the_ascent_may_be_another_objective():
  schedule = lambda t: NORM_RHO * (1.0 + t)  # noqa: E731
  transform = fs.gam(fs.sam(RHO), schedule, 0.9, 0.8, 0.7, GAMMA)
  state = transform.init(W)
  for t in range(2):
    found, state = transform.update(
      jnp.tanh(W), state, W, grad_fn=grad_fn, ascent_fn=jnp.tanh
    )
    g_0, g_1 = A @ W, A @ (W + RHO * unit(np.tanh(W)))
    point = W + schedule(t) * unit(g_1 - g_0)
    g_2, g_3 = A @ point, A @ (point + RHO * unit(np.tanh(point)))
    a, b = g_0 + 0.8 * g_2, 0.9 * g_1 + 0.7 * g_3
    expected = b - GAMMA * (a - (a @ unit(b)) * unit(b))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
  np.testing.assert_allclose(state.perturbation_norm, RHO, rtol=1e-6)


def test_what_is_missing_or_impossible_is_named():
  transform = fs.gam(fs.sam(RHO), NORM_RHO)
  with pytest.raises(ValueError, match="gam needs ascent_fn"):
    transform.update(W, transform.init(W), W, grad_fn=grad_fn)
  with pytest.raises(ValueError, match="gam needs grad_fn"):
    transform.update(W, transform.init(W), W)
  with pytest.raises(ValueError, match=r"norm_rho=-1\.0 must"):
    fs.gam(fs.sam(RHO), -1.0)
  with pytest.raises(ValueError, match="beta_2=inf must"):
    fs.gam(fs.sam(RHO), NORM_RHO, beta_2=float("inf"))
  with pytest.raises(ValueError, match="gamma=nan must"):
    fs.gam(fs.sam(RHO), NORM_RHO, gamma=float("nan"))
