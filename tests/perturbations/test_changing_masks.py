"""Masks that change, and combine rules with a state, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import forgetsam as fs

PARAMS = {"a": jnp.array([1.0, -2.0, 3.0]), "b": jnp.array([0.5, 4.0])}
GRADS = {"a": jnp.array([3.0, 1.0, -2.0]), "b": jnp.array([4.0, -1.0])}


def changing(mask_at):
  """A mask that is a function of the update count, and of the gradient."""
  return optax.GradientTransformationExtraArgs(
    lambda _: jnp.zeros((), jnp.int32),
    lambda g, t, p=None, **extra: (mask_at(t, g), t + 1),
  )


def assert_equal(actual, expected):
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  for x, y in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
    np.testing.assert_array_equal(x, y)


def ascent_fn(params):
  return jax.tree.map(lambda w: w**2, params)


PERTURBATIONS = {
  "sam": fs.sam(0.5),
  "asam": fs.asam(0.5, eta=0.1),
  "friendly": fs.friendly_sam(0.5),
  "several": fs.multi_step(fs.sam(0.5), 3),
}


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_in_each_update_it_is_only_with_that_mask(name):
  transform = PERTURBATIONS[name]
  alternating = changing(lambda t, g: {"a": t % 2 == 0, "b": t % 2 == 1})
  found = fs.only(transform, alternating)
  state = found.init(PARAMS)
  fixed = {"a": True, "b": False}
  for _ in range(1 if name == "friendly" else 2):  # its mean is of all steps
    delta, state = found.update(GRADS, state, PARAMS, ascent_fn=ascent_fn)
    same = fs.only(transform, fixed)
    expected, _ = same.update(
      GRADS, same.init(PARAMS), PARAMS, ascent_fn=ascent_fn
    )
    for x, y in zip(*map(jax.tree.leaves, (delta, expected)), strict=True):
      np.testing.assert_allclose(x, y, rtol=1e-6)
    fixed = {key: not value for key, value in fixed.items()}


def test_elementwise_the_norm_runs_over_the_chosen():
  largest = changing(lambda t, g: jax.tree.map(lambda x: jnp.abs(x) > 2, g))
  transform = fs.only(fs.sam(1.0), largest)
  delta, _ = transform.update(GRADS, transform.init(PARAMS), PARAMS)
  expected = {"a": jnp.array([0.6, 0.0, 0.0]), "b": jnp.array([0.8, 0.0])}
  for name in PARAMS:
    np.testing.assert_allclose(delta[name], expected[name], rtol=1e-6)


def test_noise_before_it_keeps_the_radius():
  first = changing(lambda t, g: {"a": jnp.arange(3) < 1, "b": False})
  transform = optax.chain(
    fs.gaussian_direction(0), fs.only(fs.scale_to_radius(0.5), first)
  )
  delta, _ = transform.update(GRADS, transform.init(PARAMS), PARAMS)
  np.testing.assert_allclose(jnp.abs(delta["a"]), [0.5, 0, 0], rtol=1e-6)
  assert not delta["b"].any()


@pytest.mark.parametrize(
  ("mask", "message"),
  [
    ({"a": 1.0, "b": 0.0}, "leaf of float32.*booleans"),
    ({"a": jnp.ones(3, bool)}, "mask does not fit params"),
    ({"a": jnp.ones(4, bool), "b": True}, "mask does not fit params"),
  ],
)
def test_masks_that_do_not_fit_are_refused(mask, message):
  transform = fs.only(fs.sam(1.0), changing(lambda t, g: mask))
  with pytest.raises(ValueError, match=message):
    transform.update(GRADS, transform.init(PARAMS), PARAMS)


def gradient_at(transform):
  return transform.update(
    GRADS, transform.init(PARAMS), PARAMS, grad_fn=ascent_fn
  )


def test_a_rule_without_a_state_may_be_a_transform_too():
  """It sees what a function does, and every other argument."""
  seen = {}

  def rule(ascent_grads, delta, grads):
    trees = ascent_grads, delta, grads
    return jax.tree.map(lambda a, d, g: a + 2 * d + 3 * g, *trees)

  def update(grads, state, params=None, *, ascent_grads, delta, **extra):
    seen.update(extra)
    return rule(ascent_grads, delta, grads), state

  transform = optax.GradientTransformationExtraArgs(lambda _: (), update)
  found, state = gradient_at(fs.perturbed_gradient(fs.sam(0.5), transform))
  expected, _ = gradient_at(fs.perturbed_gradient(fs.sam(0.5), rule))
  assert_equal(found, expected)
  assert state.perturbation.combine == ()
  assert set(seen) == {
    *("grad_fn", "value_and_grad_fn", "ascent_fn"),
    *("micro_batch", "opt_state", "perturbed_loss"),
  }
  assert seen["grad_fn"] is ascent_fn
