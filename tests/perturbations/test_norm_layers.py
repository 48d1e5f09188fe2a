"""Perturbing normalisation layers alone: SAM-ON from `only` and a mask."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx, traverse_util
from meshes import data_mesh

import forgetsam as fs


def chosen(params, names=None):
  mask = fs.norm_layers(params, names)
  leaves = jax.tree_util.tree_leaves_with_path(mask)
  return {
    jax.tree_util.keystr(path, simple=True, separator="/")
    for path, on in leaves
    if on
  }


class Net(nn.Module):
  @nn.compact
  def __call__(self, x):
    x = nn.Dense(4)(x)
    x = nn.BatchNorm(use_running_average=True)(x)
    x = nn.LayerNorm(name="ln")(x)
    x = nn.RMSNorm()(nn.GroupNorm(2)(x))
    return nn.Dense(2)(x)


NET = Net()
PARAMS = jax.eval_shape(NET.init, jax.random.key(0), jnp.ones((1, 3)))["params"]


def test_every_kind_of_norm_and_nothing_else():
  assert chosen(PARAMS) == {
    "BatchNorm_0/bias",
    "BatchNorm_0/scale",
    "GroupNorm_0/bias",
    "GroupNorm_0/scale",
    "RMSNorm_0/scale",
    "ln/bias",
    "ln/scale",
  }


@pytest.mark.parametrize(
  ("name", "shape", "count"),
  [("vit_tiny", (8, 8, 1), None), ("resnet18_cifar", (32, 32, 3), 40)],
)
def test_in_the_models_of_this_package(name, shape, count):
  module = fs.models.create(name, num_classes=3)
  params, _ = jax.eval_shape(
    lambda key: fs.models.initialise(module, key, shape), jax.random.key(0)
  )
  names = chosen(params)
  assert all(name.rsplit("/", 1)[1] in ("scale", "bias") for name in names)
  # Every array of one dimension but the biases of dense layers.
  dense = {
    jax.tree_util.keystr(path[:-1], simple=True, separator="/") + "/bias"
    for path, _ in jax.tree_util.tree_leaves_with_path(params)
    if path[-1].key == "kernel"
  }
  flat = {
    jax.tree_util.keystr(path, simple=True, separator="/")
    for path, x in jax.tree_util.tree_leaves_with_path(params)
    if x.ndim == 1
  }
  assert names == flat - dense
  assert names
  if count is not None:
    assert len(names) == count  # 20 norms with a scale and a bias


def test_only_moves_the_norms_and_takes_their_norm():
  params = {
    "dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
    "norm": {"scale": jnp.ones(1), "bias": jnp.ones(1)},
  }
  grads = {
    "dense": {"kernel": jnp.full((2, 2), 9.0), "bias": jnp.full(2, 9.0)},
    "norm": {"scale": jnp.array([3.0]), "bias": jnp.array([4.0])},
  }
  seen = []

  def grad_fn(point):
    seen.append(point)
    return point

  optimizer = optax.chain(
    fs.perturbed_gradient(fs.only(fs.sam(0.5), fs.norm_layers)), optax.sgd(1.0)
  )
  updates, _ = optimizer.update(
    grads, optimizer.init(params), params, grad_fn=grad_fn
  )
  (point,) = seen
  np.testing.assert_array_equal(point["dense"]["kernel"], 1)
  np.testing.assert_array_equal(point["dense"]["bias"], 1)
  np.testing.assert_allclose(point["norm"]["scale"], 1.3, rtol=1e-6)
  np.testing.assert_allclose(point["norm"]["bias"], 1.4, rtol=1e-6)
  np.testing.assert_allclose(updates["norm"]["bias"], -1.4, rtol=1e-6)


def test_in_the_train_step_on_eight_devices():
  def forward(params, model_state, images, *, train, key):
    x = images @ params["dense"]["kernel"]
    return x * params["norm"]["scale"] + params["norm"]["bias"], model_state

  kernel = jax.random.normal(jax.random.key(0), (3, 2))
  params = {
    "dense": {"kernel": kernel},
    "norm": {"scale": jnp.ones(2), "bias": jnp.zeros(2)},
  }
  images = jax.random.normal(jax.random.key(1), (8, 3))
  labels = jnp.arange(8) % 2
  mesh = data_mesh()
  loss, optimizer = fs.softmax_cross_entropy(), optax.sgd(1.0)
  perturb = fs.perturbed_gradient(fs.only(fs.sam(0.5), fs.norm_layers))
  step = fs.make_train_step(
    forward,
    loss=loss,
    optimizer=optimizer,
    perturb=perturb,
    micro_batch_size=1,
    mesh=mesh,
  )
  state = fs.create_train_state(params, {}, optimizer, perturb, mesh)
  state, _ = step(state, {"image": images, "label": labels}, jax.random.key(0))
  total = 0
  for i in range(8):
    x, y = images[i : i + 1] @ kernel, labels[i : i + 1]

    def dense_loss(w, scale, bias, i=i, y=y):
      return loss(images[i : i + 1] @ w * scale + bias, y)

    def norm_loss(scale, bias, x=x, y=y):
      return loss(x * scale + bias, y)

    a, b = jax.grad(norm_loss, (0, 1))(jnp.ones(2), jnp.zeros(2))
    radius = 0.5 / jnp.sqrt(jnp.sum(a**2) + jnp.sum(b**2))
    total += jax.grad(dense_loss)(kernel, 1 + radius * a, radius * b)
  np.testing.assert_allclose(
    state.params["dense"]["kernel"], kernel - total / 8, rtol=1e-4, atol=1e-6
  )


def test_in_an_nnx_state():
  class Net(nnx.Module):
    def __init__(self, rngs):
      self.dense = nnx.Linear(3, 4, rngs=rngs)
      self.norms = nnx.List(
        [nnx.BatchNorm(4, rngs=rngs), nnx.RMSNorm(4, rngs=rngs)]
      )

  params = nnx.split(Net(nnx.Rngs(0)), nnx.Param, ...)[1]
  expected = {"norms/0/scale", "norms/0/bias", "norms/1/scale"}
  assert {name.removesuffix("/value") for name in chosen(params)} == expected
  assert chosen(nnx.to_pure_dict(params)) == expected
  perturbation = fs.only(fs.sam(1.0), fs.norm_layers)
  ones = jax.tree.map(jnp.ones_like, params)
  delta, _ = perturbation.update(ones, perturbation.init(params), params)
  np.testing.assert_array_equal(delta["dense"]["kernel"][...], 0)
  np.testing.assert_allclose(delta["norms"][1]["scale"][...], 12**-0.5)


def test_in_an_equinox_model():
  key = jax.random.key(0)
  model = {
    "dense": eqx.nn.Linear(3, 4, key=key),
    "square": eqx.nn.Linear(1, 1, key=key),
    "conv": eqx.nn.Conv1d(3, 4, 1, key=key),
    "embedding": eqx.nn.Embedding(4, 3, key=key),
    "norms": [eqx.nn.LayerNorm(4), eqx.nn.GroupNorm(2, 4), eqx.nn.RMSNorm(4)],
    "rms_norm": eqx.nn.RMSNorm(4, use_bias=False),
    # Layers for a scan, whose arrays have one axis more.
    "stacked": {
      "norm": eqx.filter_vmap(lambda _: eqx.nn.LayerNorm(4))(jnp.ones(2)),
      "dense": eqx.filter_vmap(lambda k: eqx.nn.Linear(2, 2, key=k))(
        jax.random.split(key)
      ),
    },
    "prelu": eqx.nn.PReLU(),
  }
  assert chosen(eqx.filter(model, eqx.is_inexact_array)) == {
    *(f"norms/{i}/{name}" for i in range(3) for name in ("weight", "bias")),
    "rms_norm/weight",
    "stacked/norm/weight",
    "stacked/norm/bias",
  }


@pytest.mark.parametrize(
  ("shapes", "norms"),
  [
    (  # PyTorch
      {
        "conv1.weight": (4, 3, 3, 3),
        "bn1.weight": (4,),
        "bn1.bias": (4,),
        "layer1.0.downsample.1.weight": (4,),
        "layer1.0.downsample.1.bias": (4,),
        "layers.0.input_layernorm.weight": (4,),
        "layers.0.act.weight": (4,),  # a PReLU
        "layers.0.ls1.gamma": (4,),  # a LayerScale
        "head.weight": (2, 4),
        "head.bias": (2,),
      },
      {
        "bn1.weight",
        "bn1.bias",
        "layer1.0.downsample.1.weight",
        "layer1.0.downsample.1.bias",
        "layers.0.input_layernorm.weight",
      },
    ),
    (  # Keras, whose variables know their paths
      {
        "net/dense/kernel": (3, 4),
        "net/dense/bias": (4,),
        "net/batch_normalization/gamma": (4,),
        "net/batch_normalization/beta": (4,),
        "net/rms_normalization/scale": (4,),
      },
      {
        "net/batch_normalization/gamma",
        "net/batch_normalization/beta",
        "net/rms_normalization/scale",
      },
    ),
  ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_by_names_of_other_libraries(shapes, norms, nested):
  params = {k: jax.ShapeDtypeStruct(v, jnp.float32) for k, v in shapes.items()}
  if nested:
    split = {
      tuple(k.replace(".", "/").split("/")): v for k, v in params.items()
    }
    params = traverse_util.unflatten_dict(split)
    norms = {name.replace(".", "/") for name in norms}
  assert chosen(params) == norms


def test_names_of_ones_own():
  params = {"a": {"w": 1.0, "b": 1.0}, "c": {"d": {"w": 1.0}}, "e": 1.0}
  for names, expected in (
    (("a",), {"a/w", "a/b"}),
    (("d", "e"), {"c/d/w", "e"}),
    ("w", {"a/w", "c/d/w"}),
  ):
    assert chosen(params, names) == expected
  with pytest.raises(ValueError, match=r"found no norm in params.*'e'"):
    fs.norm_layers(params, ("a", "norm"))


@pytest.mark.parametrize(
  "params",
  [
    {"dense": {"kernel": jnp.ones(2)}},
    [jnp.ones(2), jnp.ones(2)],  # Keras' lists of variables
    {"act": {"weight": jnp.ones(2)}},
    {"dense": {"weight": jnp.ones((2, 2)), "bias": jnp.ones(2)}},
    jnp.ones(2),
  ],
)
def test_a_model_without_norms_is_refused(params):
  (path, _), *_ = jax.tree_util.tree_leaves_with_path(params)
  with pytest.raises(ValueError, match="no array named 'scale'") as error:
    fs.norm_layers(params)
  assert jax.tree_util.keystr(path) in str(error.value)
  assert "names=(...)), or pass only a mask of your own" in str(error.value)
