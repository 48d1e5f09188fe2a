"""The adapter from Linen modules to pure functions, for every model."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from meshes import data_mesh

from forgetsam import models

# A small variant of every kind of model; all have dropout.
OPTIONS = {
  "mlp": {"hidden": (16,), "dropout": 0.5},
  "cnn": {"widths": (4, 8), "dropout": 0.5},
  "vit_tiny": {"width": 8, "depth": 1, "num_heads": 2, "dropout": 0.5},
  "resnet18_cifar": {"width": 4, "stage_sizes": (1, 1), "dropout": 0.5},
  "resnet50": {"width": 4, "stage_sizes": (1,), "dropout": 0.5},
  "wrn28_10": {"width": 4, "stage_sizes": (1,), "dropout": 0.5},
}
IMAGE_SHAPE = (8, 8, 1)


def test_every_kind_of_model_is_tested_here():
  def kinds(names):
    return {type(models.create(name, 3)) for name in names}

  assert kinds(OPTIONS) == kinds(models.names())


@pytest.fixture(scope="module")
def model(random_variables):
  """Makes a model's forward pass and random variables for it, once each."""

  @functools.cache
  def make(name, **overrides):
    module = models.create(name, 3, **{**OPTIONS[name], **overrides})
    variables = random_variables(module, IMAGE_SHAPE)
    params = variables.pop("params")
    forward = jax.jit(models.forward(module), static_argnames="train")
    return forward, params, variables

  return make


def _images(batch=16, seed=1):
  return jax.random.normal(jax.random.key(seed), (batch, *IMAGE_SHAPE))


def _same(tree, other):
  return jax.tree.structure(tree) == jax.tree.structure(other) and all(
    np.array_equal(x, y)
    for x, y in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True)
  )


@pytest.mark.parametrize("name", OPTIONS)
def test_evaluation_is_deterministic_and_leaves_the_state_alone(model, name):
  forward, params, model_state = model(name)
  images = _images()
  logits, new_state = forward(
    params, model_state, images, train=False, key=None
  )
  again, _ = forward(
    params, model_state, images, train=False, key=jax.random.key(5)
  )
  assert logits.shape == (16, 3)
  assert logits.dtype == jnp.float32
  np.testing.assert_array_equal(logits, again)
  assert _same(new_state, model_state)


@pytest.mark.parametrize("name", OPTIONS)
def test_evaluation_treats_each_image_alone(model, name):
  forward, params, model_state = model(name)
  images = _images()
  logits, _ = forward(params, model_state, images, train=False, key=None)
  alone, _ = forward(params, model_state, images[3:4], train=False, key=None)
  np.testing.assert_allclose(alone, logits[3:4], rtol=1e-5, atol=1e-5)
  assert np.ptp(np.asarray(logits), axis=0).min() > 1e-3


@pytest.mark.parametrize("name", OPTIONS)
def test_dropout_follows_the_key_in_training_only(model, name):
  forward, params, model_state = model(name)
  first, again, other = (
    forward(
      params, model_state, _images(), train=True, key=jax.random.key(seed)
    )[0]
    for seed in (0, 0, 1)
  )
  np.testing.assert_array_equal(first, again)
  assert np.abs(first - other).max() > 1e-3


@pytest.mark.parametrize("name", OPTIONS)
def test_training_returns_state_of_the_same_structure(model, name):
  forward, params, model_state = model(name)
  _, new_state = forward(
    params, model_state, _images(), train=True, key=jax.random.key(0)
  )
  assert jax.tree.structure(new_state) == jax.tree.structure(model_state)
  assert jax.tree.map(jnp.shape, new_state) == jax.tree.map(
    jnp.shape, model_state
  )
  if model_state:
    assert not _same(new_state, model_state)


def test_collections_that_a_pass_does_not_touch_are_kept(model):
  forward, params, model_state = model("cnn")
  model_state = {**model_state, "constants": {"c": jnp.array(4.0)}}
  _, new_state = forward(
    params, model_state, _images(), train=True, key=jax.random.key(0)
  )
  assert new_state["constants"] == {"c": 4.0}


def test_a_model_without_dropout_trains_without_a_key(model):
  forward, params, model_state = model("mlp", dropout=0.0)
  trained, _ = forward(params, model_state, _images(), train=True, key=None)
  evaluated, _ = forward(params, model_state, _images(), train=False, key=None)
  np.testing.assert_array_equal(trained, evaluated)


@pytest.mark.parametrize("name", OPTIONS)
def test_bfloat16_keeps_parameters_state_and_logits_in_float32(model, name):
  forward, params, model_state = model(name, dtype="bfloat16")
  full, _, _ = model(name)

  def logits_fn(forward):
    return forward(
      params, model_state, _images(), train=True, key=jax.random.key(0)
    )

  low, new_state = logits_fn(forward)
  assert low.dtype == jnp.float32
  for leaf in jax.tree.leaves((params, new_state)):
    assert leaf.dtype == jnp.float32
  high, _ = logits_fn(full)
  np.testing.assert_allclose(low, high, rtol=0.1, atol=0.1)
  # It really computes in less: otherwise the two would be equal.
  assert np.abs(low - high).max() > 1e-4


@pytest.mark.parametrize("name", OPTIONS)
def test_gradients_on_a_mesh_are_each_devices_own(model, name):
  """Varying parameters under `check_vma` give what a loop over shards gives."""
  forward, params, model_state = model(name)
  images, key = _images(batch=16), jax.random.key(0)

  def loss_and_state(params, images):
    logits, new_state = forward(
      params, model_state, images, train=True, key=key
    )
    return jnp.mean(jnp.square(logits - 1.0)), new_state

  grad_fn = jax.grad(loss_and_state, has_aux=True)

  def of_device(params, images):
    params = jax.tree.map(
      lambda x: jax.lax.pcast(x, "data", to="varying"), params
    )
    grads, new_state = grad_fn(params, images)
    return jax.tree.map(lambda x: x[None], (grads, new_state))

  mesh = data_mesh(8)
  on_mesh = jax.jit(
    jax.shard_map(
      of_device,
      mesh=mesh,
      in_specs=(P(), P("data")),
      out_specs=P("data"),
      check_vma=True,
    )
  )(params, images)
  grad_fn = jax.jit(grad_fn)
  for i in (0, 7):
    expected = grad_fn(params, images[2 * i : 2 * i + 2])
    jax.tree.map(
      lambda x, y, i=i: np.testing.assert_allclose(
        x[i], y, rtol=1e-4, atol=1e-5
      ),
      on_mesh,
      expected,
    )


class Noisy(nn.Module):
  """Outputs a tree, of two inputs; draws from a stream, and has no `train`."""

  @nn.compact
  def __call__(self, inputs):
    noise = jax.random.normal(self.make_rng("noise"), inputs["x"].shape)
    y = nn.Embed(5, 3)(inputs["tokens"])
    named = self.has_rng("noise")
    return {"y": y, "noise": noise, "named": named, "again": self._again(noise)}

  def _again(self, noise):
    return jax.random.normal(self.make_rng("other"), noise.shape)


def test_inputs_and_outputs_are_trees_without_train_and_with_any_stream():
  specs = {
    "x": jax.ShapeDtypeStruct((4,), jnp.float32),
    "tokens": np.zeros(2, np.int32),
  }
  params, model_state = models.initialise(Noisy(), jax.random.key(0), specs)
  inputs = {"x": jnp.ones((3, 4)), "tokens": jnp.ones((3, 2), jnp.int32)}
  call = functools.partial(
    models.forward(Noisy()), params, model_state, inputs, train=True
  )
  outputs, model_state = call(key=jax.random.key(0))
  assert (outputs["y"].shape, model_state) == ((3, 2, 3), {})
  assert np.abs(outputs["noise"] - outputs["again"]).min() > 1e-4
  other, _ = call(key=jax.random.key(1))
  assert np.abs(outputs["noise"] - other["noise"]).min() > 1e-4
  assert not outputs["named"]
  named = models.forward(Noisy(), rngs=("noise",))
  assert named(params, {}, inputs, train=True, key=jax.random.key(0))[0][
    "named"
  ]
  with pytest.raises(ValueError, match=r"no key: pass key=.*\n.*\"noise\""):
    call()
  with pytest.raises(ValueError, match=r"none where train is false\n.*noise"):
    models.forward(Noisy())(params, {}, inputs, train=False)


@pytest.mark.parametrize(
  "spec", [(4,), [4], jax.ShapeDtypeStruct((4,), jnp.float32), np.zeros(4)]
)
def test_initialise_takes_shapes_and_examples(spec):
  layers = nn.Sequential([nn.Dense(3), nn.relu])
  shapes = jax.eval_shape(
    lambda key: models.initialise(layers, key, spec), jax.random.key(0)
  )
  assert shapes[0]["layers_0"]["kernel"].shape == (4, 3)


def test_a_sequential_hands_train_to_its_first_layer():
  layers = nn.Sequential([models.create("mlp", 3, hidden=(2,)), nn.relu])
  params, _ = models.initialise(layers, jax.random.key(0), (2, 2, 1))
  outputs, _ = models.forward(layers)(
    params, {}, _images()[:, :2, :2], train=False
  )
  assert outputs.shape == (16, 3)


class Deterministic(nn.Module):
  def __call__(self, x, deterministic=True):
    return x


class Positions(nn.Module):
  def __call__(self, x, positions, train=False):
    return x


@pytest.mark.parametrize(
  ("module", "error"),
  [
    (Deterministic(), "'deterministic'.*train= alone: wrap it"),
    (Positions(), "Positions: .*'positions'.*wrap it"),
    (lambda x: x, "module=function .*nnx_forward takes an NNX model.*write"),
  ],
)
def test_modules_that_cannot_be_called_are_refused(module, error):
  with pytest.raises(ValueError, match=error):
    models.forward(module)


def test_a_spec_without_a_shape_is_refused():
  with pytest.raises(ValueError, match=r"image_shape={'x': 3} must be one"):
    models.initialise(Noisy(), jax.random.key(0), {"x": 3})


class Sowing(nn.Module):
  """Sows into a tuple, which grows, and into a sum, which is a state."""

  @nn.compact
  def __call__(self, x):
    self.sow("seen", "x", x)
    self.sow(
      "sums", "x", x.sum(), init_fn=lambda: 0.0, reduce_fn=lambda a, b: a + b
    )
    pair = self.variable("pairs", "x", lambda: (x.mean(), x.mean()))
    return nn.Dense(2)(x) + pair.value[0]


def test_what_a_pass_sows_is_no_state():
  module = Sowing()
  params, model_state = models.initialise(module, jax.random.key(0), (3,))
  assert set(model_state) == {"sums", "pairs"}
  x = jnp.ones((4, 3))
  _, after = models.forward(module)(params, model_state, x, train=True)
  assert after["sums"]["x"] == 12
  assert jax.tree.structure(after) == jax.tree.structure(model_state)
