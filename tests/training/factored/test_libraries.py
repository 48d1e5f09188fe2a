"""Models of all libraries, with dropout: in factors as in the loop."""

import functools

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import forgetsam as fs
from forgetsam import models

IN, HIDDEN, OUT = 12, 16, 5


def linen():
  class Mlp(nn.Module):
    @nn.compact
    def __call__(self, x, *, train=False):
      h = nn.Dropout(0.5, deterministic=not train)(nn.tanh(nn.Dense(HIDDEN)(x)))
      return nn.Dense(OUT)(h)

  module = Mlp()
  weights = models.initialise(module, jax.random.key(0), (IN,))
  return models.forward(module), *weights


def flax_nnx():
  class Mlp(nnx.Module):
    def __init__(self, rngs):
      self.hidden = nnx.Linear(IN, HIDDEN, rngs=rngs)
      self.dropout = nnx.Dropout(0.5, rngs=rngs)
      self.head = nnx.Linear(HIDDEN, OUT, rngs=rngs)

    def __call__(self, x):
      return self.head(self.dropout(jnp.tanh(self.hidden(x))))

  return models.nnx_forward(Mlp(nnx.Rngs(0)))


def equinox():
  keys = jax.random.split(jax.random.key(0))
  layers = [
    eqx.nn.Linear(IN, HIDDEN, key=keys[0]),
    eqx.nn.Lambda(jnp.tanh),
    eqx.nn.Dropout(0.5),
    eqx.nn.Linear(HIDDEN, OUT, key=keys[1]),
  ]
  params, static = eqx.partition(eqx.nn.Sequential(layers), eqx.is_array)

  def forward(params, model_state, x, *, train, key):
    model = eqx.combine(params, static)
    keys = jax.random.split(key, len(x))
    return jax.vmap(lambda v, k: model(v, key=k))(x, keys), model_state

  return forward, params, {}


def haiku():
  hk = pytest.importorskip("haiku")

  def net(x):
    h = hk.dropout(hk.next_rng_key(), 0.5, jnp.tanh(hk.Linear(HIDDEN)(x)))
    return hk.Linear(OUT)(h)

  both = hk.transform_with_state(net)

  def forward(params, model_state, x, *, train, key):
    return both.apply(params, model_state, key, x)

  return forward, *both.init(jax.random.key(0), jnp.ones((1, IN)))


def _step(model, how):
  forward, params, model_state = model
  perturb = fs.perturbed_gradient(fs.sam(0.3))
  step = fs.make_train_step(
    forward,
    loss=fs.softmax_cross_entropy(),
    optimizer=optax.sgd(1.0),
    perturb=perturb,
    micro_batch_size=2,
    m_sharpness=how,
  )
  state = fs.create_train_state(params, model_state, optax.sgd(1.0), perturb)
  images = jax.random.normal(jax.random.key(1), (8, IN))
  return step, state, {"image": images, "label": jnp.arange(8) % OUT}


@pytest.mark.parametrize("library", [linen, flax_nnx, equinox, haiku])
def test_dropout_is_the_loops(library):
  run = functools.partial(_step, library())
  step, state, batch = run("factored")
  how = step.m_sharpness(state, batch).parameters
  assert sum(h == "factored" for h in how.values()) == 2  # the kernels
  found, _ = step(state, batch, jax.random.key(3))
  step, state, batch = run("loop")
  expected, metrics = step(state, batch, jax.random.key(3))
  for f, e in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
    if jnp.issubdtype(e.dtype, jnp.floating):
      np.testing.assert_allclose(f, e, rtol=2e-5, atol=2e-6)
  assert float(metrics["grad_norm"]) > 1e-2


@pytest.mark.parametrize("library", [linen, flax_nnx])
def test_dropout_of_other_keys_takes_the_loop(library):
  with jax.default_prng_impl("rbg"):
    step, state, batch = _step(library(), "auto")
    assert "not of threefry" in step.m_sharpness(state, batch).reason
