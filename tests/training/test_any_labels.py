"""Any labels, masks, shapes and dtypes: right, or refused by name.

Each draw is equal to a slow reference in NumPy's float64, or a ValueError that
names what does not fit.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slow_losses import (
  obf_signal,
  sigmoid_loss,
  softmax,
  softmax_loss,
  softmax_signal,
  weighted_rows,
)

import forgetsam as fs

K, B, T = 3, 4, 2
LEADS = [(B,), (B, T)]
REAL = ["float32", "bfloat16"]


@st.composite
def draws(draw, leads=LEADS):
  """Logits, labels and weights, half of them as they should be."""
  lead = draw(st.sampled_from(leads))
  rng = np.random.default_rng(draw(st.integers(0, 999)))
  right = draw(st.booleans())
  shape = (*lead, K)
  dtype = draw(st.sampled_from(REAL))
  if not right:
    shape = draw(st.sampled_from([shape, shape, lead, (*lead, 1), (0, K)]))
    dtype = draw(st.sampled_from([*REAL, "int32", "bool", "complex64"]))
  logits = np.round(2 * rng.standard_normal(shape), 1).astype(dtype)
  soft = draw(st.booleans())
  labels = (
    rng.dirichlet(np.ones(K), lead) if soft else rng.integers(K, size=lead)
  )
  if not soft and draw(st.booleans()):
    labels[0] = draw(st.sampled_from([-1, K, 200]))
  dtypes = ["float32"] if soft else ["int32", "uint8"]
  if not right:
    dtypes = [*dtypes, "float32", "int8", "bool", "complex64", "<U1"]
    change = draw(st.sampled_from(["", "[..., None]", "[None]", "[1:]", ".T"]))
    labels = eval("labels" + change, {}, {"labels": labels})
  labels = labels.astype(draw(st.sampled_from(dtypes)))
  shapes = [None, lead[:1], lead]
  if not right:
    shapes += [(*lead, 1), (), (3,), (*lead, K)]
  shape = draw(st.sampled_from(shapes))
  if shape is None:
    return logits, labels, None
  where = rng.choice([0, 0, 1, 2], shape).astype(
    draw(st.sampled_from(["bool", "int32", "float32"] + ["<U1"] * (not right)))
  )
  return logits, labels, where


def fits(logits, labels, where):
  """Whether an answer is due: said here in another way than the library."""
  lead = logits.shape[:-1]
  return (
    str(logits.dtype) in REAL
    and logits.ndim > 1
    and logits.size > 0
    and logits.shape[-1] == K
    and (
      (labels.shape == lead and labels.dtype.kind in "iu")
      or (labels.shape == logits.shape and labels.dtype.kind in "iuf")
    )
    and (
      where is None
      or (where.dtype.kind in "biuf" and where.shape in (lead, lead[:1]))
    )
  )


PAIRS = [
  (fs.softmax_cross_entropy(), softmax_loss),
  (fs.sigmoid_cross_entropy(), sigmoid_loss),
  (fs.loss_ascent(fs.softmax_cross_entropy()), softmax_signal),
  (fs.output_bias_forgetting(), obf_signal),
]
NAMES = r"^(logits|labels|where|batch\[\"(label|mask|image)\"\]|the batch|mask)"


def few(max_examples):
  return settings(
    max_examples=max_examples,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
  )


@few(30)
@given(case=draws())
def test_losses_and_signals(case):
  logits, labels, where = case
  for function, reference in PAIRS:
    if not fits(*case):
      with pytest.raises(ValueError, match=NAMES):
        function(logits, labels, where=where)
      continue
    found = np.asarray(function(logits, labels, where=where), np.float64)
    expected = reference(*weighted_rows(*case)).reshape(found.shape)
    half = found.ndim and logits.dtype != np.float32
    np.testing.assert_allclose(found, expected, atol=1e-2 if half else 3e-6)


def forward(params, model_state, images, *, train, key):
  """Images are logits; the weights, one a class, are added to what fits."""
  fit = images.shape[-1:] == (K,) and str(images.dtype) in REAL
  return jnp.asarray(params + images if fit else images), model_state


def numpy_step(logits, labels, where, obf, rho=0.5):
  """Plain NumPy: images are logits, and the weights one logit per class."""
  z, y, w = weighted_rows(logits, labels, where)
  signal = obf_signal if obf else softmax_signal
  ascent = signal(z, y, w).sum(0)
  norm = np.linalg.norm(ascent)
  delta = rho * ascent / norm if norm else 0 * ascent
  gradient = softmax_signal(z + delta, y, w).sum(0)
  right = np.argmax(z, -1) == np.argmax(np.nan_to_num(y), -1)
  return gradient, softmax_loss(z, y, w), w @ right


@few(10)
@given(case=draws(LEADS[:1]), obf=st.booleans())
def test_the_train_step(case, obf):
  logits, labels, where = case
  perturb, optimizer = fs.perturbed_gradient(fs.sam(0.5)), optax.sgd(1.0)
  step = fs.make_train_step(
    forward,
    loss=PAIRS[0][0],
    optimizer=optimizer,
    ascent=PAIRS[3][0] if obf else None,
    perturb=perturb,
  )
  batch = {"image": logits, "label": labels}
  if where is not None:
    batch["mask"] = where
  with jax.disable_jit():
    right = str(logits.dtype) in REAL
    params = jnp.zeros(K, logits.dtype if right else "float32")
    state = fs.create_train_state(params, {}, optimizer, perturb)
    if not fits(*case):
      with pytest.raises(ValueError, match=NAMES):
        step(state, batch, jax.random.key(0))
      return
    state, metrics = step(state, batch, jax.random.key(0))
  gradient, loss, accuracy = numpy_step(*case, obf)
  counts = where is None or where.any()
  assert metrics["skipped"] == (not counts or np.isnan(loss))
  if metrics["skipped"]:
    np.testing.assert_array_equal(state.params, 0)
    return
  half = logits.dtype != np.float32
  np.testing.assert_allclose(
    state.params, -gradient, atol=2e-2 if half else 3e-6
  )
  np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
  np.testing.assert_allclose(metrics["accuracy"], accuracy, rtol=1e-5)


@few(20)
@given(case=draws())
def test_the_evaluation_step(case):
  logits, labels, where = case
  batch = {"image": logits, "label": labels}
  if where is not None:
    batch["mask"] = where
  step = fs.make_eval_step(forward)
  with jax.disable_jit():
    params = np.zeros(K, logits.dtype)
    if not fits(*case):
      with pytest.raises(ValueError, match=NAMES):
        step(params, {}, batch)
      return
    sums = step(params, {}, batch)
  z, y, w = weighted_rows(*case)
  used = w > 0
  z, y = z[used], y[used]
  known = (y > 0).any(-1)
  loss = np.where(known, -(y * np.log(softmax(z))).sum(-1), np.inf).sum()
  right = known & (np.argmax(z, -1) == np.argmax(np.nan_to_num(y), -1))
  np.testing.assert_allclose(sums["loss"], loss, rtol=1e-5)
  assert sums["correct"] == right.sum()
  assert sums["count"] == used.sum()
  np.testing.assert_allclose(
    sums["bin_confidence"].sum(), softmax(z).max(-1).sum(), rtol=1e-5
  )
