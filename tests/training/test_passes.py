"""How many passes a step really runs: counted in FLOPs of the program."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import forgetsam as fs

LOSS = fs.softmax_cross_entropy()
WIDTH, SIZE = 128, 512


def forward(params, model_state, images, *, train, key):
  return jnp.tanh(images @ params["hidden"]) @ params["head"], model_state


PARAMS = {
  "hidden": 0.01 * jnp.ones((WIDTH, WIDTH)),
  "head": 0.01 * jnp.ones((WIDTH, 4)),
}
BATCH = {"image": jnp.ones((SIZE, WIDTH)), "label": jnp.arange(SIZE) % 4}


def lower(perturb):
  optimizer = optax.sgd(0.1)
  step = fs.make_train_step(
    forward, loss=LOSS, optimizer=optimizer, perturb=perturb
  )
  state = fs.create_train_state(PARAMS, {}, optimizer, perturb)
  return step, state


def flops(perturb):
  step, state = lower(perturb)
  compiled = step.lower(state, BATCH, jax.random.key(0)).compile()
  return compiled.cost_analysis()["flops"]


def test_sam_runs_two_passes_and_random_one_and_a_forward():
  """One pass is a matmul forward and one backward: images need no gradient."""
  matmul = 2 * SIZE * WIDTH * WIDTH
  assert flops(None) == pytest.approx(2 * matmul, rel=0.1)
  sam = fs.perturbed_gradient(fs.sam(0.1))
  assert flops(sam) == pytest.approx(4 * matmul, rel=0.1)
  # The clean forward pass remains, for the loss and the model state. Normal
  # draws are far from free, at about 190 operations each.
  random = fs.perturbed_gradient(fs.random_perturbation(0.1, 0))
  assert flops(random) - 190 * WIDTH**2 == pytest.approx(3 * matmul, rel=0.1)


def count_ascents(perturb, steps=6):
  """Runs some steps; how often was the ascent signal really evaluated?"""
  calls = []

  def gradient(logits, labels):
    calls.append(1)
    # The loss does not matter here, the shape does.
    return np.ones_like(logits)

  def signal(logits, labels):
    # A pure callback goes when its result is not read, as arithmetic does.
    shape = jax.ShapeDtypeStruct(logits.shape, logits.dtype)
    return jax.pure_callback(gradient, shape, logits, labels)

  optimizer = optax.sgd(0.1)
  step = fs.make_train_step(
    forward, loss=LOSS, optimizer=optimizer, perturb=perturb, ascent=signal
  )
  state = fs.create_train_state(PARAMS, {}, optimizer, perturb)
  norms = []
  for _ in range(steps):
    state, metrics = step(state, BATCH, jax.random.key(0))
    norms.append(float(metrics["perturbation_norm"]))
  return len(calls), norms, metrics


def every_third_step(rho):
  """A perturbation that ascends in every third step and rests in between."""
  radius = fs.scale_to_radius(rho)

  def update(updates, count, params, *, ascent_fn, **extra):
    grads = jax.lax.cond(
      count % 3 == 0,
      ascent_fn,
      lambda p: jax.tree.map(jnp.zeros_like, p),
      params,
    )
    delta, _ = radius.update(grads, radius.init(params))
    return delta, count + 1

  return optax.GradientTransformationExtraArgs(
    lambda _: jnp.zeros((), jnp.int32), update
  )


def test_an_ascent_inside_cond_is_skipped_where_the_branch_is_not_taken():
  perturb = fs.perturbed_gradient(every_third_step(0.1))
  ascents, norms, metrics = count_ascents(perturb)
  assert ascents == 2
  np.testing.assert_allclose(norms, [0.1, 0, 0, 0.1, 0, 0], atol=1e-6)
  assert "ascent_grad_norm" not in metrics


def test_the_ascent_pass_runs_where_it_is_read():
  ascents, _, metrics = count_ascents(fs.perturbed_gradient(fs.sam(0.1)))
  assert ascents == 6
  assert "ascent_grad_norm" in metrics


def test_an_ascent_gradient_that_is_read_for_nothing_is_not_computed():
  def update(updates, state, params=None, **extra):
    unused = jax.tree.map(jnp.sin, updates)
    return jax.tree.map(lambda u, w: 0.1 * w, unused, params), state

  shrink = optax.GradientTransformationExtraArgs(lambda _: (), update)
  ascents, _, metrics = count_ascents(fs.perturbed_gradient(shrink))
  assert ascents == 0
  assert "ascent_grad_norm" not in metrics


def test_a_random_perturbation_pays_for_no_ascent():
  random = fs.random_perturbation(0.1, 0)
  ascents, _, metrics = count_ascents(fs.perturbed_gradient(random))
  assert ascents == 0
  assert "ascent_grad_norm" not in metrics
  # ... but GSAM's rule reads the raw ascent gradient.
  combined = fs.perturbed_gradient(random, fs.surrogate_gap(0.1))
  ascents, _, metrics = count_ascents(combined)
  assert ascents == 6
  assert "ascent_grad_norm" in metrics
