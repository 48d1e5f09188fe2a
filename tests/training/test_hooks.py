"""Hooks of a step: the numbers that they give, and what an idle one costs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from meshes import collective_bytes, data_mesh

import forgetsam as fs

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
LOSS, OBF = fs.softmax_cross_entropy(), fs.output_bias_forgetting()
WIDTH, SIZE = 32, 64
PARAMS = {
  "hidden": 0.3 * RNG.standard_normal((WIDTH, WIDTH), np.float32),
  "head": 0.3 * RNG.standard_normal((WIDTH, 4), np.float32),
}
BATCH = {
  "image": RNG.standard_normal((SIZE, WIDTH), np.float32),
  "label": np.arange(SIZE) % 4,
}
MASK = np.arange(SIZE) % 5 * (np.arange(SIZE) < 48.0)
SAM = fs.perturbed_gradient(fs.sam(0.3))


def forward(params, model_state, images, *, train, key):
  return jnp.tanh(images @ params["hidden"]) @ params["head"], model_state


def make(optimizer, perturb=SAM, *, loss=LOSS, mesh=None, **arguments):
  step = fs.make_train_step(
    forward,
    loss=loss,
    optimizer=optimizer,
    perturb=perturb,
    mesh=mesh,
    **arguments,
  )
  return step, fs.create_train_state(PARAMS, {}, optimizer, perturb, mesh)


def optimizer_of(update):
  return optax.GradientTransformationExtraArgs(lambda _: (), update)


def only_clean(g, state, params=None, *, clean_grads, **extra):
  """Plain training, whatever perturbs."""
  return jax.tree.map(jnp.negative, clean_grads), state


CLEAN = optax.chain(optax.identity(), optimizer_of(only_clean))
# It accepts the argument as any other, and does nothing with it.
DEAF = optimizer_of(
  lambda g, s, p=None, **extra: (jax.tree.map(jnp.negative, g), s)
)


@pytest.mark.parametrize(("ascent", "devices"), [(None, None), (OBF, 2)])
def test_an_optimizer_may_have_the_clean_gradient(ascent, devices):
  batch = BATCH | {"mask": MASK}
  step, state = make(
    CLEAN,
    ascent=ascent,
    micro_batch_size=32,
    mesh=devices and data_mesh(devices),
  )
  state, metrics = step(state, batch, KEY)

  def loss(params):
    logits, _ = forward(params, {}, BATCH["image"], train=True, key=None)
    return LOSS(logits, BATCH["label"], where=MASK)

  expected = jax.tree.map(jnp.subtract, PARAMS, jax.grad(loss)(PARAMS))
  for name in PARAMS:
    np.testing.assert_allclose(state.params[name], expected[name], atol=1e-6)
  assert "clean_grads" not in metrics


def test_in_plain_training_the_gradient_is_the_clean_one():
  found = []
  for optimizer in (CLEAN, optax.sgd(1.0)):
    step, state = make(optimizer, None)
    found.append(step(state, BATCH, KEY)[0].params)
  for name in PARAMS:
    np.testing.assert_array_equal(found[0][name], found[1][name])


def count(optimizer, ascent=None, mesh=None):
  """Matrix products and collectives of arrays in a step as it is lowered."""
  step, state = make(optimizer, ascent=ascent, mesh=mesh)
  text = step.lower(state, BATCH, KEY).as_text()
  return text.count("stablehlo.dot_general"), text.count("stablehlo.all_reduce")


def test_a_clean_gradient_that_is_not_read_is_not_computed():
  mesh = data_mesh(2)
  plain = count(optax.sgd(1.0), OBF, mesh)
  assert count(DEAF, OBF, mesh) == plain
  products, collectives = count(CLEAN, OBF, mesh)
  assert products > plain[0]
  assert collectives == plain[1] + len(PARAMS)
  # Where the loss is ascended, it is the ascent gradient.
  assert count(CLEAN)[0] == count(DEAF)[0]


def test_a_clean_gradient_travels_in_the_one_collective():
  step, state = make(CLEAN, mesh=data_mesh(2))
  compiled = step.lower(state, BATCH, KEY).compile()
  whole = sum(x.nbytes for x in PARAMS.values())
  metrics = ("loss", "accuracy", "perturbed", "norm", "ascent norm")
  assert collective_bytes(compiled.as_text()) == {
    "all-reduce": 2 * whole + 4 * len(metrics)
  }


def by_losses(found=None):
  """A perturbation as long as the largest loss of an example is."""

  def update(grads, state, params=None, *, losses_fn, **extra):
    losses = losses_fn(params)
    scale = jnp.max(losses) / optax.tree.norm(grads)
    if found is not None:
      found.append(losses.shape)
    return jax.tree.map(lambda g: scale * g, grads), state

  return optax.GradientTransformationExtraArgs(lambda _: (), update)


@pytest.mark.parametrize(
  ("loss", "mask"),
  [(LOSS, MASK), (optax.softmax_cross_entropy_with_integer_labels, None)],
)
def test_a_perturbation_may_have_each_examples_loss(loss, mask):
  shapes = []
  perturbation = fs.only(by_losses(shapes), {"hidden": True, "head": False})
  step, state = make(
    optax.sgd(0.1), fs.perturbed_gradient(perturbation), loss=loss
  )
  batch = BATCH if mask is None else BATCH | {"mask": mask}
  _, metrics = step(state, batch, KEY)
  logits, _ = forward(PARAMS, {}, BATCH["image"], train=True, key=None)
  losses = optax.softmax_cross_entropy_with_integer_labels(
    logits, BATCH["label"]
  )
  losses = losses if mask is None else losses[mask > 0]
  np.testing.assert_allclose(
    metrics["perturbation_norm"], losses.max(), rtol=1e-5
  )
  assert set(shapes) == {(SIZE,)}  # also where the step looks what is read


class TestCombine:
  """A rule with a state: the descent follows a mean of perturbed gradients."""

  @pytest.mark.parametrize("devices", [2])
  def test_the_rules_state_is_the_mean_over_micro_batches(self, devices):
    mesh = devices and data_mesh(devices)
    mean = optax.ema(0.9, debias=False)
    perturb = fs.perturbed_gradient(fs.sam(0.3), mean)
    step, state = make(optax.sgd(0.0), perturb, mesh=mesh, micro_batch_size=32)
    plain, other = make(optax.sgd(1.0), SAM, mesh=mesh, micro_batch_size=32)
    gradient = jax.tree.map(
      jnp.subtract, PARAMS, plain(other, BATCH, KEY)[0].params
    )
    for steps, weight in ((1, 0.1), (2, 0.19)):
      state, metrics = step(state, BATCH, KEY)
      found = state.perturb_state.perturbation.combine
      assert found.count == steps
      for name in PARAMS:
        np.testing.assert_allclose(
          found.ema[name], weight * gradient[name], atol=1e-6
        )
    np.testing.assert_allclose(
      metrics["grad_norm"], weight * optax.tree.norm(gradient), rtol=1e-5
    )
