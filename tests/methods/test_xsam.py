"""XSAM: where its search ends, and what it does where there is no arc."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import forgetsam as fs

A = jnp.diag(jnp.array([1.0, 6.0]))
W = jnp.array([1.0, 0.3])
RHO = 0.2


def value_and_grad_fn(w):
  g = A @ w
  return 0.5 * jnp.sum(w * g), g


def update(rule, w, state=None, ascent=None):
  transform = fs.perturbed_gradient(fs.sam(RHO), rule)
  grads = value_and_grad_fn(w)[1] if ascent is None else ascent
  return jax.jit(transform.update)(
    grads,
    transform.init(w) if state is None else state,
    w,
    value_and_grad_fn=jax.tree_util.Partial(value_and_grad_fn),
  )


def test_the_search_is_on_the_arc_and_its_result_waits():
  rule = fs.xsam(0.5, alpha_max=2.0, points=9, update_every=2)
  found, state = update(rule, W)
  g = A @ W
  start = g / np.linalg.norm(g)
  p = A @ (W + RHO * start)
  end = p / np.linalg.norm(p)
  angle = np.arccos(start @ end)
  alphas = np.linspace(0, 2, 9)[:, None]
  arc = np.sin((1 - alphas) * angle) * start + np.sin(alphas * angle) * end
  arc = arc / np.sin(angle)
  points = W + 0.5 * arc
  best = np.argmax(np.einsum("ni,ij,nj->n", points, A, points))
  assert state.perturbation.combine.alpha == alphas[best]
  expected = np.linalg.norm(p) * arc[best]
  np.testing.assert_allclose(found, expected, rtol=1e-4)
  rule_state = state.perturbation.combine._replace(alpha=jnp.array(0.3))
  state = state._replace(
    perturbation=state.perturbation._replace(combine=rule_state)
  )
  _, state = update(rule, W, state)
  assert state.perturbation.combine.alpha == jnp.array(0.3)
  _, state = update(rule, W, state)
  assert state.perturbation.combine.alpha == alphas[best]


@pytest.mark.parametrize("ascent", [None, jnp.zeros(2)])
def test_without_an_arc_it_is_sam(ascent):
  w = jnp.array([2.0, 0.0])  # an eigenvector
  delta = 0.0 if ascent is not None else RHO
  found, _ = update(fs.xsam(0.5, alpha_max=0.0), w, ascent=ascent)
  np.testing.assert_allclose(found, [2.0 + delta, 0.0], rtol=1e-6)


def test_what_is_missing_or_impossible_is_named():
  for arguments, message in (
    ({"rho_max": -1.0}, r"rho_max=-1\.0 must"),
    ({"rho_max": 0.1, "points": 0}, "points=0 must be an integer"),
    ({"rho_max": 0.1, "update_every": 0}, "update_every=0 must"),
  ):
    with pytest.raises(ValueError, match=message):
      fs.xsam(**arguments)
  transform = fs.perturbed_gradient(fs.sam(RHO), fs.xsam(0.1))
  with pytest.raises(ValueError, match="xsam needs value_and_grad_fn"):
    transform.update(W, transform.init(W), W, grad_fn=lambda w: w)
