"""Methods with another ascent than the loss, and arguments to refuse."""

import subprocess
import sys

import jax
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
  r"points=1 must be an integer of at least 2": [
    lambda: fs.xsam(0.1, points=1)
  ],
  r"start=(-1|True) must be an integer of at least 0": [
    lambda: fs.fisher_mask(0.5, 2, start=-1),
    lambda: fs.fisher_mask(0.5, 2, start=True),
  ],
  r"learning_rate=-1\.0 must be": [
    lambda: fs.decoupled_wsam(optax.adam(1.0), -1.0)
  ],
  r"gamma=(2|0) must be": [
    lambda: fs.esam(0.1, 0, gamma=2),
    lambda: fs.esam(0.1, 0, gamma=0),
  ],
  r"alpha=1e\+17 must be": [lambda: fs.gnp(1e17)],
  r"theta=1e-18 must be above 0": [lambda: fs.vasso(0.1, theta=1e-18)],
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


# Of another type than declared: the type checks of the tests would stop them.
OF_OTHER_TYPES = {
  "fs.decoupled_wsam(optax.adam(1.0), 'x')": "learning_rate='x' must be",
  "fs.decoupled_wsam('adam', 0.1)": "optimizer='adam' must be an optax tr",
  "fs.slow_weights('adam')": "optimizer='adam' must be an optax transform",
  "fs.bsam(0.1, 0, 10, noise=3)": "noise=3 must be an optax transform",
  "fs.esam(0.1, 0, gamma='x')": "gamma='x' must be a number",
  "fs.fisher_mask(0.5, 2, start=0.5)": "start=0.5 must be an integer",
  "fs.sam(np.array([0.1, 0.2]))": "rho has the shape (2,), and must be one",
  "fs.vasso(0.1, theta=np.array([0.1]))": "theta has the shape (1,), and",
  "fs.zsharp(0.1, np.ones(2))": "percentile has the shape (2,), and must",
  "fs.only('sam', True)": "perturbation='sam' must be an optax transform",
  "fs.multi_step(0.1, 2)": "perturbation=0.1 must be an optax transform",
  "fs.every_k(fs.sam, 2)": "must be an optax transform, such as sam(rho)",
  "fs.active_between(None)": "perturbation=None must be an optax transform",
  "fs.active_between(fs.sam(0.1), 'x')": "start='x' must be an integer of at",
  "fs.active_between(fs.sam(0.1), float('nan'))": "start=nan must be an int",
  "fs.active_between(fs.sam(0.1), stop=True)": "stop=True must be an integer",
  "fs.perturbed_gradient(fs.sam(0.1), 'gsam')": "combine='gsam' must be a f",
  "fs.asam(0.1, mask=3).init({'w': np.ones(2)})": "mask has the leaf 3: its",
  "fs.asam(0.1, mask={'w': 'no'}).init({'w': np.ones(2)})": "the leaf 'no'",
  "fs.asam(0.1, mask={'b': True}).init({'w': np.ones(2)})": "does not fit pa",
}


def test_what_has_another_type_is_refused_by_name():
  program = f"""
import numpy as np, optax, forgetsam as fs
for call in {list(OF_OTHER_TYPES)!r}:
  try:
    eval(call)
  except ValueError as error:
    print(str(error).partition("\\n")[0])
  else:
    print("accepted")
"""
  done = subprocess.run(
    [sys.executable, "-c", program], capture_output=True, text=True, check=True
  )
  for said, (call, expected) in zip(
    done.stdout.splitlines(), OF_OTHER_TYPES.items(), strict=True
  ):
    assert expected in said, call


@pytest.mark.parametrize("make", [fs.fisher_mask, fs.dynamic_mask])
@pytest.mark.parametrize(("size", "sparsity"), [(10, 0.9), (100, 0.91)])
def test_masks_keep_the_whole_share(make, size, sparsity):
  """10 (1 - 0.9) is a little less than 1 in floating point."""
  w = jnp.arange(1.0, size + 1)
  mask = make(sparsity, 1)
  kept, _ = mask.update(w, mask.init(w), w, losses_fn=lambda w: w[None, 0] ** 2)
  assert jnp.sum(kept) == round(size * (1 - sparsity))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_a_sparsity_of_half_precision_counts_in_float32(dtype):
  w = jnp.ones(120_000, dtype)
  make = optax.inject_hyperparams(fs.dynamic_mask, static_args=("every",))
  mask = make(sparsity=0.5, every=1)
  assert jnp.sum(mask.update(w, mask.init(w), w)[0]) == 60_000


def test_bsam_keeps_the_dtypes_of_its_state():
  with jax.enable_x64(True):
    w = jnp.ones(3, jnp.float32)
    numbers = {
      name: np.float64(0.5)
      for name in ("beta1", "beta2", "weight_decay", "damping", "precision")
    }
    transform = fs.bsam(np.float64(0.1), 0, np.float64(100), **numbers)
    state = transform.init(w)
    _, after = transform.update(w, state, w, grad_fn=lambda w: w)
    for old, new in zip(
      jax.tree.leaves(state), jax.tree.leaves(after), strict=True
    ):
      assert old.dtype == new.dtype


def test_bsam_takes_any_number_of_examples():
  w = jnp.ones(3)
  transform = fs.bsam(0.1, 0, num_examples=10**12)
  update, _ = transform.update(w, transform.init(w), w, grad_fn=lambda w: w)
  assert np.all(np.isfinite(update))


def test_esam_scales_in_the_dtype_of_the_weights():
  w = jnp.ones(4, jnp.bfloat16)
  with jax.numpy_dtype_promotion("strict"):
    transform = fs.esam(lambda t: 0.1 * (t + 1), 0, beta=np.float32(0.5))
    grads, _ = transform.update(
      w,
      transform.init(w),
      w,
      grad_fn=lambda w: w,
      losses_fn=lambda w: jnp.stack([jnp.sum(w), -jnp.sum(w)]),
    )
  assert grads.dtype == jnp.bfloat16
