"""Model-specific forgetting, and the controls that make it mean something."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import forgetsam as fs
from forgetsam.forgetting import model_specific_forgetting, offset_fn

LOSS = fs.softmax_cross_entropy()
WIDTH, CLASSES, SIZE = 60, 3, 120
KEY = jax.random.key(5)


def logits_fn(w, x):
  return x @ w


def examples(seed):
  """Labels that hardly follow from the images: they have to be memorised."""
  keys = jax.random.split(jax.random.key(seed), 2)
  x = jax.random.normal(keys[0], (SIZE, WIDTH))
  noise = 3 * jax.random.normal(keys[1], (SIZE, CLASSES))
  return x, jnp.argmax(x[:, :CLASSES] + noise, axis=1)


TRAIN, HELD_OUT = examples(0), examples(1)
UNTRAINED = 0.05 * jax.random.normal(jax.random.key(2), (WIDTH, CLASSES))
SAM = offset_fn(logits_fn, fs.loss_ascent(LOSS), fs.sam(0.3))
RANDOM = offset_fn(
  logits_fn, fs.loss_ascent(LOSS), fs.random_perturbation(0.3, seed=0)
)


@functools.cache
def trained():
  """Fits the training examples, and so knows them."""

  @jax.jit
  def fit(w):
    gradient = jax.grad(lambda w: LOSS(logits_fn(w, TRAIN[0]), TRAIN[1]))
    return jax.lax.fori_loop(0, 300, lambda _, w: w - 0.5 * gradient(w), w)

  return fit(UNTRAINED)


@functools.cache
def report(delta_fn, m=4, repeats=80):
  return model_specific_forgetting(
    logits_fn, delta_fn, trained(), UNTRAINED, TRAIN, HELD_OUT,
    m=m, repeats=repeats, key=KEY,
  )  # fmt: skip


def in_errors(estimate):
  return float(estimate.value / estimate.standard_error)


def test_without_controls_the_untrained_network_would_forget_too():
  """The loss form grows as m shrinks, in a network that knows nothing."""
  small, large = report(SAM, m=4), report(SAM, m=16)
  for form in ("loss", "kl"):
    specific = getattr(small.untrained, form).train.specific
    assert in_errors(specific) > 10
    # With the control, nothing is left.
    assert abs(in_errors(getattr(small.untrained, form).excess)) < 3
  fewer = small.untrained.loss.train.specific.value
  assert fewer > 1.5 * large.untrained.loss.train.specific.value > 0


def test_the_kl_form_finds_what_was_memorised():
  excess = report(SAM).trained.kl.excess
  assert in_errors(excess) > 5
  untrained = report(SAM).untrained.kl.excess
  assert excess.value > 5 * abs(untrained.value)


def test_a_random_offset_is_specific_to_nothing():
  """Own and fresh examples are exchangeable, in any network."""
  for network in report(RANDOM):
    for form in network:
      for origin in (form.train, form.held_out):
        assert abs(in_errors(origin.specific)) < 3.5
        assert origin.own.standard_error > 0


def test_the_loss_form_to_first_order():
  """s = rho (||g_B|| - <g_B, g_F> / ||g_B||), from the same draws."""
  rho, m, repeats = 1e-2, 4, 6
  delta_fn = offset_fn(logits_fn, fs.loss_ascent(LOSS), fs.sam(rho))
  found = model_specific_forgetting(
    logits_fn, delta_fn, UNTRAINED, UNTRAINED, TRAIN, HELD_OUT,
    m=m, repeats=repeats, key=KEY,
  ).trained.loss  # fmt: skip
  gradient = jax.grad(lambda w, x, y: LOSS(logits_fn(w, x), y))
  for origin, (x, y), name in ((0, TRAIN, "train"), (1, HELD_OUT, "held_out")):
    own_key, expected = jax.random.fold_in(KEY, origin), []
    for r in range(repeats):
      key = jax.random.fold_in(own_key, origin * repeats + r)
      drawn = jax.random.choice(key, SIZE, (2 * m,), replace=False)
      own, fresh = drawn[:m], drawn[m:]
      g_b = gradient(UNTRAINED, x[own], y[own])
      g_f = gradient(UNTRAINED, x[fresh], y[fresh])
      norm = jnp.linalg.norm(g_b)
      expected.append(rho * (norm - jnp.sum(g_b * g_f) / norm))
    specific = getattr(found, name).specific
    np.testing.assert_allclose(specific.value, np.mean(expected), rtol=0.02)
    np.testing.assert_allclose(
      specific.standard_error,
      np.std(expected, ddof=1) / np.sqrt(repeats),
      rtol=0.05,
    )


def test_the_kl_form_is_that_of_clean_to_perturbed_outputs():
  """A constant offset of the bias: KL of two known distributions."""

  def bias_logits(b, x):
    return jnp.broadcast_to(b, (len(x), 2))

  def delta_fn(b, images, labels, *, micro_batch):
    return jnp.array([jnp.log(3.0), 0.0])

  found = model_specific_forgetting(
    bias_logits, delta_fn, jnp.zeros(2), jnp.array([jnp.log(4.0), 0.0]),
    (jnp.zeros((6, 1)), jnp.arange(6) % 2),
    (jnp.zeros((6, 1)), jnp.ones(6, int)), m=3, repeats=2, key=KEY,
  )  # fmt: skip
  # (1/2, 1/2) to (3/4, 1/4), and (4/5, 1/5) to (12/13, 1/13).
  first = 0.5 * np.log(2 / 3) + 0.5 * np.log(2)
  second = 0.8 * np.log(0.8 * 13 / 12) + 0.2 * np.log(0.2 * 13)
  for network, kl in ((found.trained, first), (found.untrained, second)):
    for origin in (network.kl.train, network.kl.held_out):
      np.testing.assert_allclose(origin.own.value, kl, rtol=1e-5)
      np.testing.assert_allclose(origin.fresh.value, kl, rtol=1e-5)
      np.testing.assert_allclose(origin.specific.value, 0, atol=1e-7)
  # All held-out labels are 1, whose probability falls from 1/2 to 1/4.
  np.testing.assert_allclose(
    found.trained.loss.held_out.own.value, np.log(2), rtol=1e-5
  )


def test_every_repeat_has_a_micro_batch_index_of_its_own():
  def delta_fn(w, images, labels, *, micro_batch):
    return jnp.full_like(w, micro_batch)

  examples = (jnp.ones((6, 1)), jnp.zeros(6, int))
  found = model_specific_forgetting(
    logits_fn, delta_fn, jnp.zeros((1, 2)), jnp.zeros((1, 2)), examples,
    examples, m=2, repeats=4, key=KEY, loss=lambda z, y: jnp.mean(z),
  ).trained.loss  # fmt: skip
  np.testing.assert_allclose(found.train.own.value, 1.5)  # 0 to 3
  np.testing.assert_allclose(found.held_out.fresh.value, 5.5)  # 4 to 7


def test_differences_and_errors_add_up():
  for form in report(SAM).trained:
    for origin in (form.train, form.held_out):
      np.testing.assert_allclose(
        origin.specific.value, origin.own.value - origin.fresh.value, rtol=1e-3
      )
    np.testing.assert_allclose(
      form.excess.value,
      form.train.specific.value - form.held_out.specific.value,
      rtol=1e-4,
    )
    np.testing.assert_allclose(
      form.excess.standard_error,
      np.hypot(
        form.train.specific.standard_error,
        form.held_out.specific.standard_error,
      ),
      rtol=1e-5,
    )


def test_another_loss_is_used_for_the_loss_form_alone():
  arguments = (logits_fn, SAM, trained(), UNTRAINED, TRAIN, HELD_OUT)
  options = {"m": 4, "repeats": 3, "key": KEY}
  one = model_specific_forgetting(*arguments, **options)
  two = model_specific_forgetting(
    *arguments,
    **options,
    # A number per example, whose mean is the step's.
    loss=lambda z, y: 2 * optax.softmax_cross_entropy_with_integer_labels(z, y),
  )
  np.testing.assert_allclose(
    two.trained.loss.train.own.value,
    2 * one.trained.loss.train.own.value,
    rtol=1e-4,
  )
  np.testing.assert_allclose(
    two.trained.kl.train.own.value, one.trained.kl.train.own.value, rtol=1e-5
  )


def test_sets_that_are_too_small_are_refused():
  arguments = (logits_fn, SAM, UNTRAINED, UNTRAINED)
  small = (HELD_OUT[0][:7], HELD_OUT[1][:7])
  with pytest.raises(ValueError, match=r"m=4 .* held_out .* it has 7"):
    model_specific_forgetting(*arguments, TRAIN, small, m=4, repeats=2, key=KEY)
  with pytest.raises(ValueError, match=r"repeats=0 .* at least 1"):
    model_specific_forgetting(
      *arguments, TRAIN, HELD_OUT, m=4, repeats=0, key=KEY
    )
