"""Offsets from examples, batches of a probe, and its choice."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import forgetsam as fs
from forgetsam.forgetting import add_offset, batched, offset_fn, probe_indices

LOSS = fs.softmax_cross_entropy()
X = jax.random.normal(jax.random.key(0), (6, 4))
Y = jnp.array([0, 1, 2, 0, 1, 1])
W = jax.random.normal(jax.random.key(1), (4, 3))


def logits_fn(w, x):
  return x @ w


def test_sam_of_a_linear_model():
  delta = offset_fn(logits_fn, fs.loss_ascent(LOSS), fs.sam(0.3))(W, X, Y)
  p = jax.nn.softmax(X @ W)
  g = X.T @ (p - jax.nn.one_hot(Y, 3)) / 6
  np.testing.assert_allclose(delta, 0.3 * g / jnp.linalg.norm(g), rtol=1e-5)


def test_obf_of_a_linear_model():
  signal = fs.output_bias_forgetting(gamma=0.0)
  delta = offset_fn(logits_fn, signal, fs.asam(0.3))(W, X, Y)
  g = X.T @ (1 / 3 - jax.nn.one_hot(Y, 3))
  expected = 0.3 * W**2 * g / jnp.linalg.norm(W * g)
  np.testing.assert_allclose(delta, expected, rtol=1e-4, atol=1e-6)


def test_a_complex_offset_ascends_in_both_parts():
  def of_parts(parts, x):
    return x @ parts[0] + jnp.square(x @ parts[1])

  parts = W, 2 * W[::-1]
  delta = offset_fn(
    lambda w, x: of_parts((w.real, w.imag), x),
    fs.loss_ascent(LOSS),
    fs.sam(0.3),
  )(jax.lax.complex(*parts), X, Y)
  expected = offset_fn(of_parts, fs.loss_ascent(LOSS), fs.sam(0.3))(parts, X, Y)
  np.testing.assert_allclose(delta, jax.lax.complex(*expected), rtol=1e-5)


def test_it_is_the_offset_of_a_training_step():
  signal, perturbation = fs.output_bias_forgetting(), fs.sam(0.3)
  optimizer = optax.sgd(1.0)
  perturb = fs.perturbed_gradient(perturbation)

  def forward(w, model_state, x, *, train, key):
    return logits_fn(w, x), model_state

  step = fs.make_train_step(
    forward, loss=LOSS, optimizer=optimizer, ascent=signal, perturb=perturb
  )
  state = fs.create_train_state(W, {}, optimizer, perturb)
  state, _ = step(state, {"image": X, "label": Y}, jax.random.key(0))
  moved = add_offset(W, offset_fn(logits_fn, signal, perturbation)(W, X, Y))
  expected = W - jax.grad(lambda w: LOSS(logits_fn(w, X), Y))(moved)
  np.testing.assert_allclose(state.params, expected, rtol=1e-5)


def test_a_run_state_carries_the_schedule_count():
  perturbation = fs.sam(lambda count: 0.1 * (1.0 + count))
  delta_fn = offset_fn(logits_fn, fs.loss_ascent(LOSS), perturbation)
  state = perturbation.init(W)._replace(count=jnp.array(4))
  np.testing.assert_allclose(
    jnp.linalg.norm(delta_fn(W, X, Y, state=state)), 0.5, rtol=1e-5
  )
  np.testing.assert_allclose(jnp.linalg.norm(delta_fn(W, X, Y)), 0.1, rtol=1e-5)


def test_extra_arguments_reach_the_perturbation():
  several = offset_fn(
    logits_fn, fs.loss_ascent(LOSS), fs.multi_step(fs.sam(0.3), 2)
  )(W, X, Y)
  ascent_fn = jax.grad(lambda w: LOSS(logits_fn(w, X), Y))
  delta = jnp.zeros_like(W)
  for _ in range(2):
    g = ascent_fn(W + delta)
    delta = delta + 0.15 * g / jnp.linalg.norm(g)
  np.testing.assert_allclose(several, delta, rtol=1e-4, atol=1e-6)

  def momentum(updates, state, params, *, opt_state, **extra):
    return opt_state, state

  along = optax.GradientTransformationExtraArgs(lambda _: (), momentum)
  delta_fn = offset_fn(logits_fn, fs.loss_ascent(LOSS), along, opt_state=2 * W)
  np.testing.assert_array_equal(delta_fn(W, X, Y), 2 * W)


def test_random_offsets_differ_with_the_micro_batch():
  delta_fn = offset_fn(
    logits_fn, fs.loss_ascent(LOSS), fs.random_perturbation(0.3, seed=0)
  )
  one, two = delta_fn(W, X, Y), delta_fn(W, X, Y, micro_batch=1)
  assert jnp.max(jnp.abs(one - two)) > 0.01
  np.testing.assert_array_equal(one, delta_fn(W, X, Y, micro_batch=0))


@pytest.mark.parametrize("batch_size", [1, 4, 6, 100, None])
def test_batches_do_not_matter(batch_size):
  seen = []

  def network(w, x):
    seen.append(len(x))
    return logits_fn(w, x)

  np.testing.assert_allclose(
    batched(network, W, X, batch_size), X @ W, rtol=1e-5
  )
  assert sum(seen) == 6
  assert max(seen) == min(6, batch_size or 6)


def test_impossible_batches_are_refused():
  with pytest.raises(ValueError, match=r"batch_size=0 .* at least 1"):
    batched(logits_fn, W, X, 0)


def test_a_probe_is_balanced_random_and_fixed_by_its_key():
  labels = np.random.default_rng(0).integers(3, size=200)
  chosen = probe_indices(labels, 30, jax.random.key(0))
  assert len(set(chosen.tolist())) == 90
  np.testing.assert_array_equal(labels[chosen], np.repeat([0, 1, 2], 30))
  np.testing.assert_array_equal(
    chosen, probe_indices(labels, 30, jax.random.key(0))
  )
  other = probe_indices(labels, 30, jax.random.key(1))
  assert set(other.tolist()) != set(chosen.tolist())


def test_impossible_probes_are_refused():
  labels = np.array([0, 0, 0, 1, 1])
  with pytest.raises(ValueError, match="class 1 has 2 examples, fewer than"):
    probe_indices(labels, 3, jax.random.key(0))
  with pytest.raises(ValueError, match="per_class=1 must be at least 2"):
    probe_indices(labels, 1, jax.random.key(0))
