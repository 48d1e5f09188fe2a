"""The perturbed gradient among optax's wrappers, and its errors."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import forgetsam as fs

IMAGES = jax.random.normal(jax.random.key(0), (8, 4))
LABELS = jnp.arange(8) % 3
PARAMS = {
  "w": jax.random.normal(jax.random.key(1), (4, 3)),
  "b": jnp.array([0.1, 0.2, -0.3]),
}


def grad_of(images, labels):
  def loss(params):
    logits = images @ params["w"] + params["b"]
    return fs.softmax_cross_entropy()(logits, labels)

  return jax.grad(loss)


GRAD_FN = grad_of(IMAGES, LABELS)


def assert_close(actual, expected, rtol=1e-5):
  for x, y in zip(
    jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-6)


def perturbed_by_hand(images, labels, rho):
  grad_fn = grad_of(images, labels)
  g = grad_fn(PARAMS)
  scale = rho / optax.tree.norm(g)
  return grad_fn(jax.tree.map(lambda w, g: w + scale * g, PARAMS, g))


def test_agrees_with_optax_contrib_sam_in_opaque_mode():
  theirs = optax.contrib.sam(
    optax.sgd(0.1),
    optax.chain(optax.contrib.normalize(), optax.sgd(0.05)),
    sync_period=2,
    opaque_mode=True,
  )
  ours = optax.chain(fs.perturbed_gradient(fs.sam(0.05)), optax.sgd(0.1))
  state, our_state = theirs.init(PARAMS), ours.init(PARAMS)
  params, our_params = PARAMS, PARAMS
  for _ in range(4):
    updates, state = theirs.update(
      GRAD_FN(params), state, params, grad_fn=lambda p, _: GRAD_FN(p)
    )
    params = optax.apply_updates(params, updates)
    updates, our_state = ours.update(
      GRAD_FN(our_params), our_state, our_params, grad_fn=GRAD_FN
    )
    our_params = optax.apply_updates(our_params, updates)
  assert_close(our_params, params)


def test_multi_steps_after_it_is_m_sharpness_over_mini_steps():
  rho = 0.3
  optimizer = optax.chain(
    fs.perturbed_gradient(fs.sam(rho)), optax.MultiSteps(optax.sgd(1.0), 2)
  )
  state, params = optimizer.init(PARAMS), PARAMS
  for part in (slice(0, 4), slice(4, 8)):
    grad_fn = grad_of(IMAGES[part], LABELS[part])
    updates, state = optimizer.update(
      grad_fn(params), state, params, grad_fn=grad_fn
    )
    params = optax.apply_updates(params, updates)
  halves = [
    perturbed_by_hand(IMAGES[part], LABELS[part], rho)
    for part in (slice(0, 4), slice(4, 8))
  ]
  mean = jax.tree.map(lambda a, b: (a + b) / 2, *halves)
  assert_close(params, jax.tree.map(jnp.subtract, PARAMS, mean))


def test_multi_steps_around_it_perturbs_the_last_mini_batch_alone():
  """The trap that the docstring warns of."""
  rho = 0.3
  optimizer = optax.MultiSteps(
    optax.chain(fs.perturbed_gradient(fs.sam(rho)), optax.sgd(1.0)), 2
  )
  state, params = optimizer.init(PARAMS), PARAMS
  ascent = []
  for part in (slice(0, 4), slice(4, 8)):
    grad_fn = grad_of(IMAGES[part], LABELS[part])
    ascent.append(grad_fn(params))
    updates, state = optimizer.update(
      ascent[-1], state, params, grad_fn=grad_fn
    )
    params = optax.apply_updates(params, updates)
  mean = jax.tree.map(lambda a, b: (a + b) / 2, *ascent)
  scale = rho / optax.tree.norm(mean)
  point = jax.tree.map(lambda w, g: w + scale * g, PARAMS, mean)
  last = grad_of(IMAGES[4:], LABELS[4:])(point)
  assert_close(params, jax.tree.map(jnp.subtract, PARAMS, last))


def test_a_schedule_inside_multi_steps_counts_perturbed_gradients():
  seen = []

  def rho(count):
    seen.append(int(count))
    return 0.1

  optimizer = optax.chain(
    fs.perturbed_gradient(fs.sam(rho)), optax.MultiSteps(optax.sgd(1.0), 2)
  )
  state = optimizer.init(PARAMS)
  for _ in range(4):
    _, state = optimizer.update(GRAD_FN(PARAMS), state, PARAMS, grad_fn=GRAD_FN)
  assert seen == [0, 1, 2, 3]


def test_the_loss_at_the_perturbed_point_is_kept():
  transform = fs.perturbed_gradient(fs.sam(0.5))

  def value_and_grad_fn(params):
    return jnp.sum(params["w"]), jax.tree.map(jnp.ones_like, params)

  ones = jax.tree.map(jnp.ones_like, PARAMS)
  _, state = transform.update(
    ones,
    transform.init(PARAMS),
    PARAMS,
    value_and_grad_fn=value_and_grad_fn,
  )
  size = sum(x.size for x in jax.tree.leaves(PARAMS))
  expected = jnp.sum(PARAMS["w"]) + 12 * 0.5 / np.sqrt(size)
  np.testing.assert_allclose(state.perturbed_loss, expected, rtol=1e-5)


def test_every_argument_reaches_the_perturbation():
  seen = {}

  def update(updates, state, params=None, **extra):
    seen.update(extra)
    return updates, state

  spy = optax.GradientTransformationExtraArgs(lambda _: (), update)
  transform = fs.perturbed_gradient(spy)
  transform.update(
    PARAMS,
    transform.init(PARAMS),
    PARAMS,
    grad_fn=GRAD_FN,
    ascent_fn=GRAD_FN,
    micro_batch=3,
    opt_state="state",
    mine="mine",
  )
  assert seen["grad_fn"] is GRAD_FN
  assert seen["ascent_fn"] is GRAD_FN
  assert callable(seen["value_and_grad_fn"])
  assert (seen["micro_batch"], seen["opt_state"]) == (3, "state")
  assert seen["mine"] == "mine"


def test_the_combine_rule_gets_all_three_gradients():
  seen = {}

  def combine(ascent_grads, delta, grads):
    seen.update(ascent=ascent_grads, delta=delta)
    return jax.tree.map(jnp.negative, grads)

  transform = fs.perturbed_gradient(fs.sam(0.3), combine)
  ascent = GRAD_FN(PARAMS)
  grads, _ = transform.update(
    ascent, transform.init(PARAMS), PARAMS, grad_fn=GRAD_FN
  )
  assert seen["ascent"] is ascent
  np.testing.assert_allclose(optax.tree.norm(seen["delta"]), 0.3, rtol=1e-5)
  expected = perturbed_by_hand(IMAGES, LABELS, 0.3)
  assert_close(grads, jax.tree.map(jnp.negative, expected))


def test_missing_arguments_are_named():
  transform = fs.perturbed_gradient(fs.sam(0.1))
  state = transform.init(PARAMS)
  with pytest.raises(ValueError, match=r"needs grad_fn.*pass it as perturb"):
    transform.update(PARAMS, state, PARAMS)
  with pytest.raises(ValueError, match="needs params"):
    transform.update(PARAMS, state, grad_fn=GRAD_FN)


@pytest.mark.parametrize(
  "wrap",
  [
    lambda t: optax.masked(t, {"w": True, "b": False}),
    lambda t: optax.partition(
      {"perturbed": t, "plain": optax.identity()},
      {"w": "perturbed", "b": "plain"},
    ),
  ],
)
def test_masked_or_partitioned_it_says_what_to_restrict(wrap):
  transform = wrap(fs.perturbed_gradient(fs.sam(0.1)))
  with pytest.raises(ValueError, match=r"fs\.only\(perturbation, mask\)"):
    transform.init(PARAMS)
