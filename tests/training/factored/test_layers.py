"""Layers of all kinds: gradients in factors against formed ones, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import forgetsam as fs
from tests.training.factored.models import MODELS, Model

RHO = 0.3


@pytest.fixture(autouse=True)
def _float64():
  with jax.enable_x64(True):
    yield


def _reference(model: Model, params, xs, ys):
  """The mean over micro-batches of the gradient at w + rho g / ||g||.

  Where inputs are tokens, of 3 times it minus twice g.
  """

  def loss(params, x, y):
    return jnp.mean((model.apply(params, x) - y) ** 2)

  def of_one(x, y):
    g = jax.grad(loss)(params, x, y)
    scale = RHO / optax.tree.norm(g)
    moved = jax.tree.map(lambda w, d: w + scale * d, params, g)
    found = jax.grad(loss)(moved, x, y)
    if not model.tokens:
      return found
    return jax.tree.map(lambda p, a: 3 * p - 2 * a, found, g)

  grads = jax.jit(jax.vmap(of_one))(xs, ys)
  return jax.tree.map(lambda g: g.mean(0), grads)


def _step(model: Model, m: int, **options):
  def forward(params, model_state, inputs, *, train, key):
    return model.apply(params, inputs), model_state

  def loss(outputs, labels):
    return jnp.mean((outputs - labels) ** 2)

  # With a combine rule gradients are summed in factors, not by autodiff.
  combine = fs.weighted(0.75) if model.tokens else None
  perturb = fs.perturbed_gradient(fs.sam(RHO), combine)
  step = fs.make_train_step(
    forward,
    loss=loss,
    optimizer=optax.sgd(1.0),
    perturb=perturb,
    micro_batch_size=m,
    **options,
  )
  state = fs.create_train_state(model.params(), {}, optax.sgd(1.0), perturb)
  return step, state


# The others take long together.
ALWAYS = (
  "mlp",
  "tied",
  "rematerialised stack",
  "returned by jit",
  "wide convolution",
)


@pytest.mark.parametrize(
  "name",
  [
    name if name in ALWAYS else pytest.param(name, marks=pytest.mark.slow)
    for name in MODELS
  ],
)
def test_gradient_is_that_of_formed_offsets(name):
  model = MODELS[name]
  params, (x, y) = model.params(), model.batch(8)
  n, m = 4, 2
  xs, ys = jax.tree.map(lambda a: a.reshape(n, m, *a.shape[1:]), (x, y))
  expected = _reference(model, params, xs, ys)

  step, state = _step(model, m, m_sharpness="factored")
  how = step.m_sharpness(state, {"image": x, "label": y})
  assert how.parameters == model.how
  new, metrics = step(state, {"image": x, "label": y}, jax.random.key(0))
  found = jax.tree.map(jnp.subtract, params, new.params)
  for e, f in zip(
    jax.tree.leaves(expected), jax.tree.leaves(found), strict=True
  ):
    np.testing.assert_allclose(f, e, rtol=1e-9, atol=1e-11)
  assert float(metrics["perturbation_norm"]) == pytest.approx(RHO)
