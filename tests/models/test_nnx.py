"""NNX models as pure functions, and in the place of Linen modules."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from meshes import data_mesh

import forgetsam as fs
from forgetsam import models, sharpness

IN, HIDDEN, CLASSES = 4, 8, 3


class Linen(nn.Module):
  @nn.compact
  def __call__(self, x, train):
    x = nn.Dense(HIDDEN, name="hidden")(x)
    x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
    return nn.Dense(CLASSES, name="head")(nn.relu(x))


class Net(nnx.Module):
  """As `Linen`, where there is no dropout."""

  def __init__(self, num_classes=CLASSES, rate=0.0, *, rngs):
    self.hidden = nnx.Linear(IN, HIDDEN, rngs=rngs)
    self.norm = nnx.BatchNorm(HIDDEN, rngs=rngs)
    self.dropout = nnx.List([nnx.Dropout(rate, rngs=rngs) for _ in range(2)])
    self.head = nnx.Linear(HIDDEN, num_classes, rngs=rngs)

  def __call__(self, x):
    x = nnx.relu(self.norm(self.hidden(x)))
    for dropout in self.dropout:
      x = dropout(x)
    return self.head(x)


@pytest.fixture(scope="module")
def linen():
  module = Linen()
  return models.forward(module), *models.initialise(
    module, jax.random.key(0), (IN,)
  )


@pytest.fixture(scope="module")
def taken_apart():
  return models.nnx_forward(Net(rngs=nnx.Rngs(0)))


def _batch():
  images = jax.random.normal(jax.random.key(1), (16, IN))
  mask = jnp.array([1.0, 1, 0, 1, 0, 0, 1, 1] * 2)
  return {"image": images, "label": jnp.arange(16) % CLASSES, "mask": mask}


def _trained(forward, params, model_state, mesh):
  optimizer, perturb = optax.sgd(0.1), fs.perturbed_gradient(fs.sam(0.5))
  step = fs.make_train_step(
    forward,
    loss=fs.softmax_cross_entropy(),
    optimizer=optimizer,
    perturb=perturb,
    micro_batch_size=2,
    mesh=mesh,
  )
  state = fs.create_train_state(params, model_state, optimizer, perturb, mesh)
  for _ in range(2):
    state, metrics = step(state, _batch(), jax.random.key(0))
  return state.params, state.model_state, metrics


def _assert_equal(actual, expected):
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
    actual,
    expected,
  )


def test_training_is_the_linen_models(linen, taken_apart):
  """Weights, statistics (clean passes' alone) and metrics."""
  forward, params, model_state = linen
  mine, *own = taken_apart
  assert jax.tree.structure(own) == jax.tree.structure([params, model_state])
  mesh = data_mesh(4)
  expected = _trained(forward, params, model_state, mesh)
  actual = _trained(mine, params, model_state, mesh)
  _assert_equal(actual, expected)
  moved = actual[1]["batch_stats"]["norm"]["mean"]
  assert np.abs(moved).max() > 1e-4


def test_measures_take_it(linen, taken_apart):
  forward, params, model_state = linen
  batch, loss = _batch(), fs.softmax_cross_entropy()

  def measured(f):
    sums = fs.make_eval_step(f)(params, model_state, batch)
    of_set = sharpness.dataset_loss(f, loss, model_state, [batch])
    return sums, of_set.value(params)

  _assert_equal(measured(taken_apart[0]), measured(forward))


def test_in_linens_place_it_is_the_same(taken_apart):
  module = models.from_nnx(Net)
  variables = models.initialise(module, jax.random.key(0), (IN,))
  x = _batch()["image"]
  for train in (True, False):
    _assert_equal(
      models.forward(module)(*variables, x, train=train, key=jax.random.key(0)),
      taken_apart[0](*variables, x, train=train, key=jax.random.key(0)),
    )
  module.apply({"params": variables[0], **variables[1]}, x, train=False)


def test_dropout_layers_draw_apart_and_by_the_key():
  class Masks(nnx.Module):
    def __init__(self, rngs):
      self.dropout = nnx.List([nnx.Dropout(0.5, rngs=rngs) for _ in range(2)])

    def __call__(self, x):
      return tuple(dropout(x) for dropout in self.dropout)

  forward, params, model_state = models.nnx_forward(Masks(nnx.Rngs(0)))
  assert (params, model_state) == ({}, {})
  forward = functools.partial(forward, params, model_state, jnp.ones((4, 64)))
  (one, other), _ = forward(train=True, key=jax.random.key(0))
  assert 0.3 < np.mean(one != other) < 0.7
  (again, _), _ = forward(train=True, key=jax.random.key(0))
  np.testing.assert_array_equal(one, again)
  (third, _), _ = forward(train=True, key=jax.random.key(1))
  assert 0.3 < np.mean(one != third) < 0.7
  (kept, _), _ = forward(train=False)
  np.testing.assert_array_equal(kept, 1.0)
  with pytest.raises(ValueError, match=r"streams: default.*pass key="):
    forward(train=True)


def test_a_module_in_linens_place_drops_out_and_takes_train():
  class Flagged(nnx.Module):
    def __init__(self, rngs):
      self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x, train):
      return self.dropout(x) * (2 if train else 1)

  forward = models.forward(models.from_nnx(Flagged))
  dropped, _ = forward(
    {}, {}, jnp.ones((9, 9)), train=True, key=jax.random.key(0)
  )
  assert set(np.unique(dropped)) == {0, 4}
  kept, _ = forward({}, {}, jnp.ones((9, 9)), train=False)
  assert set(np.unique(kept)) == {1}


def test_a_vmapped_stack_has_a_stream_for_each_layer():
  class Stack(nnx.Module):
    def __init__(self, rngs):
      @nnx.split_rngs(splits=2)
      @nnx.vmap
      def make(rngs):
        return nnx.Dropout(0.5, rngs=rngs)

      self.layers = make(rngs)

    def __call__(self, x):
      return nnx.vmap(lambda layer, x: layer(x), in_axes=(0, None))(
        self.layers, x
      )

  forward, *_ = models.nnx_forward(Stack(nnx.Rngs(0)))
  (one, other), _ = forward(
    {}, {}, jnp.ones(64), train=True, key=jax.random.key(0)
  )
  assert 0.3 < np.mean(one != other) < 0.7


def test_linen_modules_are_refused():
  with pytest.raises(ValueError, match=r"a Linen, and must be an nnx\.Module"):
    models.nnx_forward(Linen())
