"""StableSAM, alone and where another objective ascends."""

import jax.numpy as jnp
import numpy as np
import pytest

import forgetsam as fs

A = jnp.array([[3.0, 1.0], [1.0, 2.0]])
W = jnp.array([1.0, -2.0])
RHO = 0.3


def grad_fn(w):
  return A @ w


@pytest.mark.parametrize("ascend", [grad_fn, jnp.tanh])
def test_the_length_is_that_of_the_clean_gradient(ascend):
  rule = fs.with_clean_gradient(fs.stable_sam())
  transform = fs.perturbed_gradient(fs.sam(RHO), rule)
  a = ascend(W)
  found, _ = transform.update(
    a, transform.init(W), W, grad_fn=grad_fn, ascent_fn=ascend
  )
  p = A @ (W + RHO * a / np.linalg.norm(a))
  expected = p * np.linalg.norm(A @ W) / np.linalg.norm(p)
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_loss_as_its_own_ascent_is_not_taken_again():
  calls = []

  def counted(w):
    calls.append(w)
    return A @ w

  rule = fs.with_clean_gradient(fs.stable_sam())
  transform = fs.perturbed_gradient(fs.sam(RHO), rule)
  transform.update(
    A @ W, transform.init(W), W, grad_fn=counted, ascent_fn=counted
  )
  assert len(calls) == 1
