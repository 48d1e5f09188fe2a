"""The ViT: what it computes, and where its parameters start."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from forgetsam import models


@pytest.fixture(scope="module")
def initial():
  """Initial parameters of a wide, shallow model: many draws of each kind."""
  module = models.create("vit_tiny", 10, width=128, depth=1, head_bias=-10.0)
  return models.initialise(module, jax.random.key(0), (32, 32, 3))[0]


def test_the_head_starts_at_zero(initial):
  np.testing.assert_array_equal(initial["head"]["dense"]["kernel"], 0.0)
  np.testing.assert_array_equal(initial["head"]["dense"]["bias"], -10.0)


def test_position_embedding(initial):
  positions = initial["embedding"]["pos_embed"]
  assert positions.shape == (1, 64, 128)  # 8 x 8 patches, no class token
  np.testing.assert_allclose(np.std(positions), 128**-0.5, rtol=0.03)


def test_patch_embedding_is_lecun_normal(initial):
  projection = initial["embedding"]["projection"]
  assert projection["kernel"].shape == (4, 4, 3, 128)
  np.testing.assert_allclose(
    np.std(projection["kernel"]), (4 * 4 * 3) ** -0.5, rtol=0.03
  )
  # Truncated at two deviations of the normal that it is drawn from.
  limit = 2 * 48**-0.5 / 0.8796
  assert np.abs(projection["kernel"]).max() <= limit * (1 + 1e-6)
  np.testing.assert_array_equal(projection["bias"], 0.0)


@pytest.mark.parametrize(
  ("path", "fan_in", "fan_out"),
  [
    (("attention", "query"), 128, 128),
    (("attention", "key"), 128, 128),
    (("attention", "value"), 128, 128),
    (("attention", "out"), 128, 128),
    (("mlp1",), 128, 256),
    (("mlp2",), 256, 128),
  ],
)
def test_kernels_are_xavier_uniform(initial, path, fan_in, fan_out):
  layer = initial["block0"]
  for name in path:
    layer = layer[name]
  bound = np.sqrt(6 / (fan_in + fan_out))
  kernel = np.asarray(layer["kernel"])
  assert kernel.size == fan_in * fan_out
  assert 0.99 * bound < np.abs(kernel).max() <= bound
  np.testing.assert_allclose(np.std(kernel), bound / np.sqrt(3), rtol=0.02)
  np.testing.assert_array_equal(layer["bias"], 0.0)


def test_norms_start_as_the_identity(initial):
  block = initial["block0"]
  for norm in (block["norm1"], block["norm2"], initial["norm"]):
    np.testing.assert_array_equal(norm["scale"], 1.0)
    np.testing.assert_array_equal(norm["bias"], 0.0)


def _layer_norm(x, params):
  centred = x - x.mean(-1, keepdims=True)
  scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
  return scaled * params["scale"] + params["bias"]


def _attention(x, params):
  query, key, value = (
    np.einsum("btd,dhe->bthe", x, params[name]["kernel"]) + params[name]["bias"]
    for name in ("query", "key", "value")
  )
  scores = np.einsum("bqhe,bkhe->bhqk", query, key) / np.sqrt(query.shape[-1])
  mixed = np.einsum("bhqk,bkhe->bqhe", special.softmax(scores, -1), value)
  out = params["out"]
  return np.einsum("bqhe,hed->bqd", mixed, out["kernel"]) + out["bias"]


def _vit(images, params, patch):
  """The whole model, written from its equations."""
  batch, height, width, channels = images.shape
  rows, columns = height // patch, width // patch
  x = images.reshape(batch, rows, patch, columns, patch, channels)
  x = x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * columns, -1)
  embedding = params["embedding"]
  kernel = embedding["projection"]["kernel"]
  x = x @ kernel.reshape(-1, kernel.shape[-1])
  x = x + embedding["projection"]["bias"] + embedding["pos_embed"]
  for i in range(2):
    block = params[f"block{i}"]
    x = x + _attention(_layer_norm(x, block["norm1"]), block["attention"])
    y = _layer_norm(x, block["norm2"])
    y = y @ block["mlp1"]["kernel"] + block["mlp1"]["bias"]
    y = y * special.ndtr(y)
    x = x + y @ block["mlp2"]["kernel"] + block["mlp2"]["bias"]
  x = _layer_norm(x.mean(1), params["norm"])
  head = params["head"]["dense"]
  return x @ head["kernel"] + head["bias"]


def test_logits_follow_the_equations(random_variables):
  module = models.create(
    "vit_tiny", 3, patch_size=2, width=8, depth=2, num_heads=2
  )
  variables = random_variables(module, (4, 6, 2))
  rng = np.random.default_rng(1)
  images = rng.normal(size=(2, 4, 6, 2)).astype("float32")
  logits = jax.jit(module.apply)(variables, images)
  np.testing.assert_allclose(
    logits, _vit(images, variables["params"], patch=2), rtol=1e-4, atol=1e-4
  )


def test_epsilon_of_the_last_norm(random_variables):
  module = models.create("vit_tiny", 3, width=8, depth=1, num_heads=2)
  # Tokens so small that a variance of about 1e-6 stands beside epsilon.
  params = random_variables(module, (4, 4, 1), scale=0.0)["params"]
  token = np.linspace(-1e-3, 1e-3, 8, dtype="float32")
  params["embedding"]["projection"]["bias"] = token
  params["norm"]["scale"] = np.ones(8, "float32")
  params["head"]["dense"]["kernel"] = np.eye(8, 3, dtype="float32")
  logits = jax.jit(module.apply)({"params": params}, jnp.zeros((1, 4, 4, 1)))
  expected = token[:3] / np.sqrt(np.mean(token.astype(float) ** 2) + 1e-6)
  np.testing.assert_allclose(logits[0], expected, rtol=1e-4)


def test_patches_must_tile_the_image():
  module = models.create("vit_tiny", 3, patch_size=4)
  with pytest.raises(ValueError, match=r"patch_size=4.*10 and 8"):
    models.initialise(module, jax.random.key(0), (10, 8, 1))


def test_where_dropout_stands(random_variables):
  module = models.create("vit_tiny", 3, width=8, depth=1, dropout=0.5)
  variables = random_variables(module, (8, 4, 1))
  dropped = []

  def record(call, args, kwargs, context):
    if isinstance(context.module, nn.Dropout):
      dropped.append(args[0].shape)
    return call(*args, **kwargs)

  with nn.intercept_methods(record):
    jax.eval_shape(
      lambda images: module.apply(
        variables, images, train=True, rngs={"dropout": jax.random.key(0)}
      ),
      jax.ShapeDtypeStruct((2, 8, 4, 1), jnp.float32),
    )
  # The embedding, the attention, the hidden layer, the perceptron.
  assert dropped == [(2, 2, 8), (2, 2, 8), (2, 2, 16), (2, 2, 8)]


def test_softmax_is_float32_in_bfloat16(random_variables):
  module = models.create("vit_tiny", 3, width=8, depth=1, dtype="bfloat16")
  variables = random_variables(module, (8, 8, 1))
  jaxpr = jax.make_jaxpr(module.apply)(variables, jnp.zeros((1, 8, 8, 1)))
  # The softmax's is the only exponential.
  dtypes = re.findall(r":(\w+)\[[\d,]*\] = exp ", str(jaxpr))
  assert dtypes == ["f32"]
