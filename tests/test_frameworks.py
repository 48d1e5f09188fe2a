"""Plain, SAM and OBF steps with Linen, NNX, Equinox and plain JAX models.

The four models have the same weights, so that all must end in the same place.
"""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from meshes import data_mesh

import forgetsam as fs

IN, HIDDEN, OUT = 6, 5, 3
KERNELS = {
  "hidden": 0.5 * jax.random.normal(jax.random.key(0), (IN, HIDDEN)),
  "head": 0.5 * jax.random.normal(jax.random.key(1), (HIDDEN, OUT)),
}
BATCH = {
  "image": jax.random.normal(jax.random.key(2), (8, IN)),
  "label": jnp.arange(8) % OUT,
}


def plain_jax():
  def forward(params, model_state, images, *, train, key):
    hidden = jnp.tanh(images @ params["hidden"])
    return hidden @ params["head"], model_state

  return dict(KERNELS), {}, forward, lambda params: params


def linen():
  class Mlp(nn.Module):
    num_classes: int = OUT

    @nn.compact
    def __call__(self, images, *, train=False):
      x = jnp.tanh(nn.Dense(HIDDEN, use_bias=False, name="hidden")(images))
      return nn.Dense(self.num_classes, use_bias=False, name="head")(x)

  params = {name: {"kernel": kernel} for name, kernel in KERNELS.items()}
  return (
    params,
    {},
    fs.models.forward(Mlp()),
    lambda params: {name: params[name]["kernel"] for name in KERNELS},
  )


def flax_nnx():
  class Mlp(nnx.Module):
    def __init__(self, rngs):
      self.hidden = nnx.Linear(IN, HIDDEN, use_bias=False, rngs=rngs)
      self.head = nnx.Linear(HIDDEN, OUT, use_bias=False, rngs=rngs)

    def __call__(self, images):
      return self.head(jnp.tanh(self.hidden(images)))

  model = Mlp(nnx.Rngs(0))
  model.hidden.kernel[...] = KERNELS["hidden"]
  model.head.kernel[...] = KERNELS["head"]
  graph, params, rest = nnx.split(model, nnx.Param, ...)

  def forward(params, model_state, images, *, train, key):
    model = nnx.merge(graph, params, model_state, copy=True)
    logits = model(images)
    return logits, nnx.split(model, nnx.Param, ...)[2]

  def kernels(params):
    pure = nnx.to_pure_dict(params)
    return {name: pure[name]["kernel"] for name in KERNELS}

  return params, rest, forward, kernels


def equinox():
  class Mlp(eqx.Module):
    hidden: eqx.nn.Linear
    head: eqx.nn.Linear

    def __call__(self, image):
      return self.head(jnp.tanh(self.hidden(image)))

  key = jax.random.key(0)
  model = Mlp(
    eqx.nn.Linear(IN, HIDDEN, use_bias=False, key=key),
    eqx.nn.Linear(HIDDEN, OUT, use_bias=False, key=key),
  )
  model = eqx.tree_at(
    lambda m: (m.hidden.weight, m.head.weight),
    model,
    (KERNELS["hidden"].T, KERNELS["head"].T),
  )
  params, static = eqx.partition(model, eqx.is_inexact_array)

  def forward(params, model_state, images, *, train, key):
    model = eqx.combine(params, static)
    return jax.vmap(model)(images), model_state

  def kernels(params):
    return {"hidden": params.hidden.weight.T, "head": params.head.weight.T}

  return params, {}, forward, kernels


METHODS = {
  "plain": {},
  "sam": {"perturb": fs.perturbed_gradient(fs.sam(0.3))},
  "obf": {
    "perturb": fs.perturbed_gradient(fs.sam(0.3)),
    "ascent": fs.output_bias_forgetting(),
  },
}


def train(model, method):
  params, model_state, forward, kernels = model()
  optimizer = fs.sgdw(0.1, weight_decay=1e-3)
  arguments = METHODS[method]
  step = fs.make_train_step(
    forward,
    loss=fs.sigmoid_cross_entropy(),
    optimizer=optimizer,
    micro_batch_size=4,
    **arguments,
  )
  state = fs.create_train_state(
    params, model_state, optimizer, arguments.get("perturb")
  )
  for _ in range(3):
    state, metrics = step(state, BATCH, jax.random.key(3))
    assert metrics["skipped"] == 0
  return kernels(state.params)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", [linen, flax_nnx, equinox])
def test_every_library_ends_where_plain_jax_does(model, method):
  actual, expected = train(model, method), train(plain_jax, method)
  for name, start in KERNELS.items():
    np.testing.assert_allclose(actual[name], expected[name], atol=1e-6)
    assert np.abs(expected[name] - start).max() > 1e-3


def test_nnx_state_of_every_kind_passes_through():
  """Running statistics and dropout keys live in NNX's model state."""

  class Net(nnx.Module):
    def __init__(self, rngs):
      self.hidden = nnx.Linear(IN, HIDDEN, rngs=rngs)
      self.norm = nnx.BatchNorm(HIDDEN, rngs=rngs)
      self.dropout = nnx.Dropout(0.5, rngs=rngs)
      self.head = nnx.Linear(HIDDEN, OUT, rngs=rngs)

    def __call__(self, x):
      return self.head(self.dropout(self.norm(self.hidden(x))))

  model = Net(nnx.Rngs(0))
  graph, params, rest = nnx.split(model, nnx.Param, ...)

  def forward(params, model_state, images, *, train, key):
    model = nnx.merge(graph, params, model_state, copy=True)
    model.train() if train else model.eval()
    logits = model(images)
    return logits, nnx.split(model, nnx.Param, ...)[2]

  mesh = data_mesh(2)
  optimizer, perturb = optax.sgd(0.1), METHODS["sam"]["perturb"]
  step = fs.make_train_step(
    forward,
    loss=fs.softmax_cross_entropy(),
    optimizer=optimizer,
    perturb=perturb,
    mesh=mesh,
  )
  state = fs.create_train_state(params, rest, optimizer, perturb, mesh)
  before = [np.asarray(x) for x in statistics(state)]
  state, metrics = step(state, BATCH, jax.random.key(3))
  assert metrics["skipped"] == 0
  after = [np.asarray(x) for x in statistics(state)]
  assert all(
    np.abs(a - b).max() > 1e-4 for a, b in zip(before, after, strict=True)
  )


def statistics(state):
  return [
    x
    for x in jax.tree.leaves(state.model_state)
    if jnp.issubdtype(x.dtype, jnp.floating)
  ]
