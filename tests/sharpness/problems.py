"""A tiny network with its dense curvature, and quadratics of known spectrum."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from forgetsam.sharpness import DatasetLoss

HIGHEST = jax.lax.Precision.HIGHEST
N, INPUTS, HIDDEN, CLASSES = 24, 5, 4, 3


def draw(seed, *shape):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), "float32")


PARAMS = {
  "body": {"bias": draw(1, HIDDEN), "kernel": draw(2, INPUTS, HIDDEN)},
  "head": {"bias": draw(3, CLASSES), "kernel": draw(4, HIDDEN, CLASSES)},
}
# The running mean that an evaluation-mode network subtracts.
STATE = {"mean": draw(5, INPUTS)}
IMAGES = draw(6, N, INPUTS)
LABELS = jnp.asarray(np.random.default_rng(7).integers(0, CLASSES, N))


def forward(params, model_state, images, *, train, key):
  assert train is False
  assert key is None
  x = images - model_state["mean"]
  x = jnp.tanh(x @ params["body"]["kernel"] + params["body"]["bias"])
  logits = x @ params["head"]["kernel"] + params["head"]["bias"]
  return logits, model_state


def batches_of(size, count=N):
  """The first examples in padded batches; the padding holds nan."""
  for start in range(0, count, size):
    images = IMAGES[start : min(start + size, count)]
    padding = size - len(images)
    yield {
      "image": jnp.pad(images, [(0, padding), (0, 0)], constant_values=jnp.nan),
      "label": jnp.pad(LABELS[start : start + len(images)], (0, padding)),
      "mask": jnp.arange(size) < len(images),
    }


class Dense(NamedTuple):
  """Value, gradient and matrices over the flat parameters."""

  value: Any
  gradient: Any
  hessian: Any
  gauss_newton: Any


@functools.cache
def dense(loss, count=N):
  """Without batches, by another route: whole Jacobians and Hessians."""
  flat, unravel = ravel_pytree(PARAMS)

  def logits(w):
    return forward(unravel(w), STATE, IMAGES[:count], train=False, key=None)[0]

  objective = lambda w: loss(logits(w), LABELS[:count])  # noqa: E731

  @jax.jit
  def compute():
    jacobian = jax.jacrev(logits)(flat)
    curvature = jax.hessian(lambda z: loss(z, LABELS[:count]))(logits(flat))
    gauss_newton = jnp.einsum("bki,bkcl,clj->ij", jacobian, curvature, jacobian)
    return Dense(
      objective(flat),
      jax.grad(objective)(flat),
      jax.hessian(objective)(flat),
      gauss_newton,
    )

  with jax.default_matmul_precision("highest"):
    return jax.device_get(compute())


def matrix(eigenvalues, seed=0):
  """A symmetric matrix of known spectrum, rotated at random."""
  rng = np.random.default_rng(seed)
  q, _ = np.linalg.qr(rng.normal(size=(len(eigenvalues),) * 2))
  return jnp.asarray(q * np.asarray(eigenvalues) @ q.T, "float32")


def product(A):  # noqa: N803
  return lambda v: jnp.matmul(A, v, precision=HIGHEST)


def quadratic(A, b):  # noqa: N803
  """The loss 1/2 w'Aw + b'w as a dataset's."""

  def value(w):
    return 0.5 * jnp.vdot(w, product(A)(w)) + jnp.vdot(b, w)

  return DatasetLoss(
    value=value,
    value_and_gradient=jax.value_and_grad(value),
    hessian_vector_product=lambda w, v: product(A)(v),
    gauss_newton_vector_product=lambda w, v: product(A)(v),
    num_examples=1,
    parts=(),
  )
