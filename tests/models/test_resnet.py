"""ResNets: what they compute, and where their parameters start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from forgetsam import models

BASIC = {"width": 2, "stage_sizes": (1, 1)}


@pytest.fixture(scope="module")
def initial():
  """Initial parameters of a wide, shallow model: many draws of each kind."""
  module = models.create("resnet50", 100, width=32, stage_sizes=(1, 1))
  return models.initialise(module, jax.random.key(0), (32, 32, 3))[0]


@pytest.mark.parametrize(
  ("path", "fan_out"),
  [
    (("stem",), 49 * 32),
    (("stage0_block0", "layer1"), 32),
    (("stage0_block0", "layer2"), 9 * 32),
    (("stage1_block0", "layer3"), 4 * 64),
    (("stage1_block0", "shortcut"), 4 * 64),
  ],
)
def test_kernels_are_he_normal_of_the_fan_out(initial, path, fan_out):
  layer = initial
  for name in path:
    layer = layer[name]
  kernel = np.asarray(layer["conv"]["kernel"])
  std = np.sqrt(2 / fan_out)
  np.testing.assert_allclose(np.std(kernel), std, rtol=0.05)
  # Not truncated at two deviations.
  assert np.abs(kernel).max() > 2.3 * std
  assert set(layer["conv"]) == {"kernel"}


def test_the_last_scale_of_each_block_starts_at_zero(initial):
  for block in ("stage0_block0", "stage1_block0"):
    for name, layer in initial[block].items():
      expected = 0.0 if name == "layer3" else 1.0
      np.testing.assert_array_equal(layer["bn"]["scale"], expected)
      np.testing.assert_array_equal(layer["bn"]["bias"], 0.0)
  np.testing.assert_array_equal(initial["stem"]["bn"]["scale"], 1.0)


def test_the_last_scale_of_a_basic_block_starts_at_zero():
  module = models.create("resnet18_cifar", 3, width=2, stage_sizes=(1,))
  params, _ = models.initialise(module, jax.random.key(0), (2, 2, 1))
  scales = {k: v["bn"]["scale"] for k, v in params["stage0_block0"].items()}
  assert {k: float(v.max()) for k, v in scales.items()} == {
    "layer1": 1.0,
    "layer2": 0.0,
  }


def test_the_head_starts_as_a_linear_layer_of_pytorch(initial):
  head = initial["head"]["dense"]
  features = 4 * 64
  for x in (head["kernel"], head["bias"]):
    x = np.asarray(x) * np.sqrt(features)
    assert 0.95 < np.abs(x).max() <= 1.0
    np.testing.assert_allclose(np.std(x), 1 / np.sqrt(3), rtol=0.15)
  assert np.std(head["bias"]) > 0


def _conv(x, kernel, stride):
  """Correlation with zeros around, every `stride`-th output kept."""
  pad = kernel.shape[0] // 2
  x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
  out = [
    sum(
      signal.correlate2d(image[..., i], kernel[..., i, o], "valid")
      for i in range(kernel.shape[2])
    )
    for image in x
    for o in range(kernel.shape[3])
  ]
  out = np.stack(out).reshape(len(x), kernel.shape[3], *out[0].shape)
  return out.transpose(0, 2, 3, 1)[:, ::stride, ::stride]


def _network(variables, images, bottleneck, stages, imagenet_stem):
  """The whole model in evaluation, written from its definition."""
  params, stats = variables["params"], variables["batch_stats"]

  def conv_norm(x, path, stride):
    p, s = params, stats
    for name in path:
      p, s = p[name], s[name]
    x = _conv(x, np.asarray(p["conv"]["kernel"], np.float64), stride)
    x = (x - s["bn"]["mean"]) / np.sqrt(s["bn"]["var"] + 1e-5)
    return x * p["bn"]["scale"] + p["bn"]["bias"]

  def relu(x):
    return np.maximum(x, 0)

  x = relu(conv_norm(images, ("stem",), 2 if imagenet_stem else 1))
  if imagenet_stem:
    padded = np.pad(
      x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf
    )
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    x = windows.max((-1, -2))[:, ::2, ::2]
  for stage in range(stages):
    block, stride = f"stage{stage}_block0", 2 if stage else 1
    strides = (1, stride, 1) if bottleneck else (stride, 1)
    y = x
    for i, step in enumerate(strides, start=1):
      y = conv_norm(y, (block, f"layer{i}"), step)
      y = y if i == len(strides) else relu(y)
    if "shortcut" in params[block]:
      x = conv_norm(x, (block, "shortcut"), stride)
    x = relu(x + y)
  head = params["head"]["dense"]
  return x.mean((1, 2)) @ head["kernel"] + head["bias"]


@pytest.mark.parametrize(
  ("name", "image_size"), [("resnet18_cifar", 6), ("resnet50", 14)]
)
def test_logits_follow_the_definition(random_variables, name, image_size):
  module = models.create(name, 3, **BASIC)
  image_shape = (image_size, image_size + 2, 2)
  variables = random_variables(module, image_shape)
  images = np.random.default_rng(1).normal(size=(2, *image_shape))
  logits = jax.jit(module.apply)(variables, images.astype("float32"))
  expected = _network(
    variables, images, name == "resnet50", 2, name == "resnet50"
  )
  np.testing.assert_allclose(logits, expected, rtol=2e-4, atol=2e-4)


def test_shortcuts_stand_where_the_shape_changes():
  def shortcuts(name):
    module = models.create(name, 3, width=2, stage_sizes=(2, 2))
    images = jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)
    params = jax.eval_shape(module.init, jax.random.key(0), images)["params"]
    return {block for block in params if "shortcut" in params[block]}

  assert shortcuts("resnet50") == {"stage0_block0", "stage1_block0"}
  assert shortcuts("resnet18_cifar") == {"stage1_block0"}
