"""SAMPa's batch before, in a loop of one's own, a training step and a run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import data_mesh

import forgetsam as fs

RHO, LAM, LR, MOMENTUM = 0.3, 0.4, 0.2, 0.9
LOSS = fs.softmax_cross_entropy()
KEY = jax.random.key(0)
IMAGES = jax.random.normal(KEY, (3, 8, 3))
LABELS = jnp.arange(24).reshape(3, 8) % 2
KERNEL = jax.random.normal(jax.random.key(1), (3, 2))


def forward(params, model_state, images, *, train, key):
  return images @ params, model_state


def batch(t):
  """With the one before; the first stands before itself."""
  now, before = (
    {"image": IMAGES[i], "label": LABELS[i]} for i in (t, max(t - 1, 0))
  )
  return {**now, "previous": before}


def make(mesh=None, perturb=None, **arguments):
  optimizer = fs.sgdw(LR, MOMENTUM)
  perturb = perturb or fs.sampa(fs.sam(RHO), LR, LAM, MOMENTUM)
  step = fs.make_train_step(
    forward,
    loss=LOSS,
    optimizer=optimizer,
    perturb=perturb,
    mesh=mesh,
    **arguments,
  )
  return step, fs.create_train_state(KERNEL, {}, optimizer, perturb, mesh)


@pytest.mark.parametrize("devices", [1, 2])
def test_a_step_takes_the_batch_before_on_each_device(devices):
  """The gradients are means over micro-batches, and so is the direction."""
  step, state = make(data_mesh(devices), micro_batch_size=2)

  def gradient(w, examples):
    return jax.grad(lambda w: LOSS(examples["image"] @ w, examples["label"]))(w)

  w, m, q = KERNEL, jnp.zeros_like(KERNEL), jnp.zeros_like(KERNEL)
  for t in range(3):
    state, metrics = step(state, batch(t), KEY)
    delta = RHO * q / jnp.maximum(jnp.linalg.norm(q), 1e-12)
    p = gradient(w + delta, batch(t)["previous"])
    q = gradient(w - LR * (q + MOMENTUM * m), batch(t))
    m = MOMENTUM * m + (1 - LAM) * p + LAM * q
    w = w - LR * m
    np.testing.assert_allclose(state.params, w, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.perturb_state.perturbation.grads, q, 1e-4)
    norm = RHO if t else 0
    np.testing.assert_allclose(metrics["perturbation_norm"], norm, rtol=1e-5)
    assert "ascent_grad_norm" not in metrics


def without_previous():
  return {"image": IMAGES[0], "label": LABELS[0]}


@pytest.mark.parametrize(
  ("changed", "message"),
  [
    ({"previous": IMAGES[0]}, "previous.*image.*label"),
    ({"previous": {"image": IMAGES[0]}}, "previous.*image.*label"),
    (
      {"previous": {"image": IMAGES[0, :4], "label": LABELS[0, :4]}},
      "previous.*in the shapes",
    ),
    ({"mask": jnp.ones(8)}, 'previous.*"mask".*leave one out'),
  ],
)
def test_a_batch_before_that_does_not_fit_is_refused(changed, message):
  step, state = make()
  with pytest.raises(ValueError, match=message):
    step(state, batch(0) | changed, KEY)


def test_a_batch_before_that_nothing_reads_is_refused():
  step, state = make(perturb=fs.perturbed_gradient(fs.sam(RHO)))
  with pytest.raises(ValueError, match=r"previous.*perturb does not read"):
    step(state, batch(0), KEY)
  plain = fs.make_train_step(forward, loss=LOSS, optimizer=fs.sgdw(LR))
  state = fs.create_train_state(KERNEL, {}, fs.sgdw(LR))
  with pytest.raises(ValueError, match=r"previous.*plain training"):
    plain(state, batch(0), KEY)


def test_without_the_batch_before_it_is_named():
  step, state = make()
  with pytest.raises(ValueError, match=r"needs previous_value.*batch\[.prev"):
    step(state, without_previous(), KEY)


def test_it_is_not_factored():
  step, state = make(micro_batch_size=2, m_sharpness="auto")
  found = step.m_sharpness(state, batch(0))
  assert (found.how, "batch before" in found.reason) == ("loop", True)
