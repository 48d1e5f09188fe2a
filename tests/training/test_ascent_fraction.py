"""Perturbations from a part of each micro-batch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from meshes import data_mesh

import forgetsam as fs

LOSS = fs.softmax_cross_entropy()
IMAGES = jax.random.normal(jax.random.key(0), (16, 3))
LABELS = jnp.arange(16) % 2
BATCH = {"image": IMAGES, "label": LABELS}
KERNEL = jax.random.normal(jax.random.key(1), (3, 2))
RHO = 0.5


def forward(params, model_state, images, *, train, key):
  if model_state:
    model_state = {"examples": model_state["examples"] + images.shape[0]}
  return images @ params["kernel"], model_state


def run(perturb, fraction=None, *, model_state=None, mesh=None, **arguments):
  optimizer = optax.sgd(1.0)
  if fraction is not None:
    arguments["ascent_fraction"] = fraction
  step = fs.make_train_step(
    forward,
    loss=LOSS,
    optimizer=optimizer,
    perturb=perturb,
    mesh=mesh,
    **arguments,
  )
  state = fs.create_train_state(
    {"kernel": KERNEL}, model_state or {}, optimizer, perturb, mesh
  )
  return step(state, BATCH, jax.random.key(0))


def by_hand(size, count, signal):
  """Kernel and metrics after a step that ascends `count` of `size` examples."""
  grads, losses, hits, norms = [], [], [], []
  for start in range(0, 16, size):
    x, y = IMAGES[start : start + size], LABELS[start : start + size]
    logits = x[:count] @ KERNEL
    g = x[:count].T @ signal(logits, y[:count])
    losses.append(LOSS(logits, y[:count]))
    hits.append(jnp.mean(jnp.argmax(logits, 1) == y[:count]))
    norms.append(jnp.linalg.norm(g))
    w = KERNEL + RHO * g / norms[-1]
    grads.append(jax.grad(lambda w, x=x, y=y: LOSS(x @ w, y))(w))
  kernel = KERNEL - sum(grads) / len(grads)
  return kernel, np.mean(losses), np.mean(hits), np.mean(norms)


@pytest.mark.parametrize(
  ("size", "fraction", "count"),
  [(16, 0.25, 4), (8, 0.3, 3), (8, 0.01, 1), (4, 0.5, 2)],
)
def test_the_first_examples_of_each_micro_batch_ascend(size, fraction, count):
  signal = fs.output_bias_forgetting()
  state, metrics = run(
    fs.perturbed_gradient(fs.sam(RHO)),
    fraction,
    ascent=signal,
    micro_batch_size=size,
    model_state={"examples": jnp.zeros((), jnp.int32)},
  )
  kernel, loss, accuracy, norm = by_hand(size, count, signal)
  np.testing.assert_allclose(
    state.params["kernel"], kernel, rtol=1e-5, atol=1e-6
  )
  np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
  np.testing.assert_allclose(metrics["accuracy"], accuracy, rtol=1e-6)
  np.testing.assert_allclose(metrics["ascent_grad_norm"], norm, rtol=1e-5)
  # The clean pass alone advances the model's state.
  assert state.model_state["examples"] == count * 16 // size


def test_rounding_up_ignores_rounding_errors():
  """0.07 * 100 is 7.000000000000001 in floating point."""
  assert 0.07 * 100 > 7
  seen = []

  def signal(logits, labels):
    seen.append(len(logits))
    return logits

  optimizer, perturb = optax.sgd(0.1), fs.perturbed_gradient(fs.sam(RHO))
  step = fs.make_train_step(
    forward,
    loss=LOSS,
    optimizer=optimizer,
    perturb=perturb,
    ascent=signal,
    ascent_fraction=0.07,
  )
  state = fs.create_train_state({"kernel": KERNEL}, {}, optimizer, perturb)
  batch = {"image": jnp.ones((100, 3)), "label": jnp.zeros(100, jnp.int32)}
  step.lower(state, batch, jax.random.key(0))
  assert set(seen) == {7}


def test_several_ascents_all_take_the_part():
  signal = fs.output_bias_forgetting()
  perturb = fs.perturbed_gradient(fs.multi_step(fs.sam(RHO), 2))
  state, _ = run(perturb, 0.25, ascent=signal)
  x, y, delta = IMAGES[:4], LABELS[:4], 0.0
  for _ in range(2):
    g = x.T @ signal(x @ (KERNEL + delta), y)
    delta = delta + RHO / 2 * g / jnp.linalg.norm(g)
  g = jax.grad(lambda w: LOSS(IMAGES @ w, LABELS))(KERNEL + delta)
  np.testing.assert_allclose(
    state.params["kernel"], KERNEL - g, rtol=1e-5, atol=1e-6
  )


def test_look_sam_ascends_the_part_and_descends_the_whole():
  perturb = fs.look_sam(fs.sam(RHO), 2, 0.5)
  state, _ = run(perturb, 0.25)
  kernel, *_ = by_hand(16, 4, fs.loss_ascent(LOSS))
  np.testing.assert_allclose(
    state.params["kernel"], kernel, rtol=1e-5, atol=1e-6
  )


@pytest.mark.parametrize("ascent", [None, fs.output_bias_forgetting()])
def test_one_is_the_whole_bit_for_bit(ascent):
  perturb = fs.perturbed_gradient(fs.sam(RHO), fs.surrogate_gap(0.1))
  runs = [
    run(perturb, fraction, ascent=ascent, micro_batch_size=4)
    for fraction in (None, 1.0, 1)
  ]
  for other in runs[1:]:
    jax.tree.map(np.testing.assert_array_equal, other, runs[0])


def test_eight_devices_agree_with_one():
  perturb = fs.perturbed_gradient(fs.sam(RHO))
  mesh = data_mesh()
  results = [
    run(perturb, 0.5, micro_batch_size=2, mesh=place) for place in (None, mesh)
  ]
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6),
    *jax.device_get([(state.params, metrics) for state, metrics in results]),
  )


@pytest.mark.parametrize("fraction", [0.25, 0.5, 1.0])
def test_a_step_costs_one_plus_the_fraction(fraction):
  width, size = 128, 512

  def forward(params, model_state, images, *, train, key):
    return jnp.tanh(images @ params["hidden"]) @ params["head"], model_state

  params = {"hidden": jnp.ones((width, width)), "head": jnp.ones((width, 4))}
  optimizer, perturb = optax.sgd(0.1), fs.perturbed_gradient(fs.sam(RHO))
  step = fs.make_train_step(
    forward,
    loss=LOSS,
    optimizer=optimizer,
    perturb=perturb,
    ascent_fraction=fraction,
  )
  state = fs.create_train_state(params, {}, optimizer, perturb)
  batch = {"image": jnp.ones((size, width)), "label": jnp.arange(size) % 4}
  compiled = step.lower(state, batch, jax.random.key(0)).compile()
  plain = 2 * 2 * size * width * width
  flops = compiled.cost_analysis()["flops"]
  assert flops == pytest.approx((1 + fraction) * plain, rel=0.1)


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.5, float("nan")])
def test_shares_outside_of_zero_to_one_are_refused(fraction):
  with pytest.raises(ValueError, match=rf"ascent_fraction={fraction} must be"):
    run(fs.perturbed_gradient(fs.sam(RHO)), fraction)


def test_a_share_of_nothing_is_refused():
  with pytest.raises(
    ValueError, match="without perturb, where nothing ascends"
  ):
    run(None, 0.5)
  state, _ = run(None, 1.0)
  assert state.step == 1
