"""Methods with another ascent than the loss, and arguments to refuse."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import forgetsam as fs

W = {"w": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "b": jnp.array([0.3, -0.2])}
SQUARES = fs.fisher_mask(0.5, 1, fisher=lambda p, **extra: p)

REFUSED = {
  r"rho=-1 must be": [
    lambda: fs.gc_sam(-1),
    lambda: fs.le_sam(-1, 0.1),
    lambda: fs.unified_sam(-1, 0.5),
    lambda: fs.zsharp(-1),
    lambda: fs.sparse_sam(-1),
    lambda: fs.bsam(-1, 0, 10),
  ],
  r"sigma=nan must be": [lambda: fs.le_sam(0.1, float("nan"))],
  r"lam=1\.5 must be in \[0, 1\]": [
    lambda: fs.unified_sam(0.1, 1.5),
    lambda: fs.sampa(fs.sam(0.1), 0.1, 1.5),
  ],
  r"percentile=2 must be in \[0, 1\]": [lambda: fs.zsharp(0.1, 2)],
  r"axis=True must be an integer": [lambda: fs.centralize(True)],
  r"axis=2 is none of an array.*\(2, 2\)": [
    lambda: fs.centralize(2).update(W, optax.EmptyState())
  ],
  r"mask='largest' must be one of 'fisher', 'dynamic'": [
    lambda: fs.sparse_sam(0.1, "largest")
  ],
  r"sparsity=2 must be in \[0, 1\]": [
    lambda: fs.fisher_mask(2, 1),
    lambda: fs.dynamic_mask(2, 1),
  ],
  r"every=0 must be an integer": [
    lambda: fs.fisher_mask(0.5, 0),
    lambda: fs.dynamic_mask(0.5, 0),
  ],
  r"drop_rate=3 must be": [lambda: fs.dynamic_mask(0.5, 1, drop_rate=3)],
  r"drop='all' must be one of": [lambda: fs.dynamic_mask(0.5, 1, drop="all")],
  r"growth='all' must be": [lambda: fs.dynamic_mask(0.5, 1, growth="all")],
  r"needs losses_fn.*fisher": [
    lambda: fs.sparse_sam(0.1).update(W, fs.sparse_sam(0.1).init(W), W)
  ],
  r"beta1=1 must be in \[0, 1\)": [lambda: fs.bsam(0.1, 0, 10, beta1=1)],
  r"num_examples=0 must be": [lambda: fs.bsam(0.1, 0, 0)],
  r"precision of bsam": [
    lambda: fs.bsam(0.1, 0, 10).init(jnp.ones(2, jnp.complex64))
  ],
  r"z_score_filter.*real": [
    lambda: fs.zsharp(0.1).update(jnp.ones((2, 2), jnp.complex64), ((), ()))
  ],
  r"fisher_mask is of real": [
    lambda: SQUARES.init(jnp.ones(2, jnp.complex64)),
  ],
  r"gamma=inf must be finite": [lambda: fs.cr_sam(fs.sam(0.1), float("inf"))],
  r"learning_rate=-1 must be": [lambda: fs.sampa(fs.sam(0.1), -1)],
  r"momentum=1 must be in \[0, 1\)": [
    lambda: fs.sampa(fs.sam(0.1), 0.1, momentum=1)
  ],
}


@pytest.mark.parametrize(
  ("message", "call"),
  [(message, call) for message, calls in REFUSED.items() for call in calls],
)
def test_what_cannot_be_is_refused_by_name(message, call):
  with pytest.raises(ValueError, match=message):
    call()


# On the loss of the gradient A w, with an ascent along B w.
A, B = np.diag([3.0, 1.0]), np.array([[0.0, 1.0], [1.0, 0.5]])
POINT = np.array([1.0, -2.0])
OTHER = {
  "grad_fn": lambda w: jnp.asarray(A, w.dtype) @ w,
  "ascent_fn": lambda w: jnp.asarray(B, w.dtype) @ w,
}


def update(transform):
  w = jnp.asarray(POINT, jnp.float32)
  grads, state = transform.update(
    OTHER["ascent_fn"](w), transform.init(w), w, **OTHER
  )
  return grads, state.perturbation


def test_cr_sam_takes_the_loss_between_its_sides_whatever_ascends():
  grads, _ = update(fs.cr_sam(fs.sam(0.7), gamma=0.3, beta=0.2))
  a = B @ POINT
  delta = 0.7 * a / np.linalg.norm(a)
  # On a quadratic loss the second difference is zero.
  expected = A @ (POINT + delta) + 0.2 * A @ (2 * delta)
  np.testing.assert_allclose(grads, expected, rtol=1e-5)


def test_bsam_has_its_variance_from_the_loss_whatever_ascends():
  transform = fs.bsam(0.2, 0, 1e12, 0.0, 0.9, precision=4.0, damping=0.0)
  grads, memory = update(transform)
  expected = A @ (POINT + 0.2 * B @ POINT / 4) / 4
  np.testing.assert_allclose(grads, expected, rtol=1e-4)
  precision = 0.9 * 4 + 0.1 * 2 * np.abs(A @ POINT)
  np.testing.assert_allclose(memory.precision, precision, rtol=1e-4)
