"""Names, options, parameter counts and initial values of registered models."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from forgetsam import models

# Parameters of each model under its default options, by the images' shape and
# the number of classes; the arithmetic is spelled out where it fits.
GREY, CIFAR, IMAGENET = (28, 28, 1), (32, 32, 3), (224, 224, 3)
PARAMETER_COUNTS = {
  # 784 * 256 + 256, 256 * 256 + 256, 256 * 10 + 10
  "mlp": (GREY, 10, 200_960 + 65_792 + 2_570),
  # 9 * (1 * 32 + 32 * 64 + 64 * 128), scale and bias of 32 + 64 + 128
  # channels, 128 * 10 + 10
  "cnn": (GREY, 10, 92_448 + 448 + 1_290),
  # 16 * 64 + 64 of the patches, 49 * 64 of the positions; per block 2 * 128
  # of the norms, 4 * (64 * 64 + 64) of attention, 64 * 128 + 128 and
  # 128 * 64 + 64; 128 of the last norm, 64 * 10 + 10
  "vit_tiny": (
    GREY,
    10,
    1_088 + 3_136 + 4 * (256 + 16_640 + 8_320 + 8_256) + 128 + 650,
  ),
  # 48 * 192 + 192 of the patches, 64 * 192 of the positions; per block 2 * 384
  # of the norms, 4 * (192 * 192 + 192) of attention, 192 * 768 + 768 and
  # 768 * 192 + 192; 384 of the last norm, 192 * 10 + 10
  "vit_cifar": (
    CIFAR,
    10,
    9_408 + 12_288 + 12 * (768 + 148_224 + 148_224 + 147_648) + 384 + 1_930,
  ),
  # The ResNet-18 for CIFAR-10 that papers report as having 11.17 M.
  "resnet18_cifar": (CIFAR, 10, 11_173_962),
  # The 36.5 M of the paper.
  "wrn28_10": (CIFAR, 10, 36_479_194),
  # Those of the reference implementation.
  "vit_s16": (IMAGENET, 1000, 22_049_896),
  "vit_s32": (IMAGENET, 1000, 22_878_184),
  "resnet50": (IMAGENET, 1000, 25_557_032),
  "resnet101": (IMAGENET, 1000, 44_549_160),
}

# Small variants of every kind: what they test does not depend on the size.
SMALL = {
  "mlp": {"hidden": (4,)},
  "cnn": {"widths": (4,)},
  "vit_tiny": {"width": 4, "depth": 1, "num_heads": 1},
  "resnet50": {"width": 2, "stage_sizes": (1,)},
}


def test_every_model_has_a_golden_parameter_count():
  assert set(PARAMETER_COUNTS) == set(models.names())


@pytest.mark.parametrize("name", models.names())
def test_parameter_count(name):
  image_shape, num_classes, expected = PARAMETER_COUNTS[name]
  module = models.create(name, num_classes)
  images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  variables = jax.eval_shape(module.init, jax.random.key(0), images)
  count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
  assert count == expected


@pytest.mark.parametrize("name", models.names())
def test_every_model_takes_a_dtype_and_remat(name):
  module = models.create(name, 3, dtype="bfloat16", remat=True)
  assert (module.dtype, module.remat) == ("bfloat16", True)


@pytest.mark.parametrize("name", SMALL)
def test_low_precision_leaves_parameters_and_logits_in_float32(name):
  module = models.create(name, 3, **SMALL[name], dtype="bfloat16", remat=True)

  def run(key):
    params, model_state = models.initialise(module, key, (4, 4, 1))
    images = jnp.ones((2, 4, 4, 1))
    return params, module.apply({"params": params, **model_state}, images)

  found = jax.tree.leaves(jax.eval_shape(run, jax.random.key(0)))
  assert {x.dtype for x in found} == {jnp.dtype("float32")}


@pytest.mark.parametrize("name", SMALL)
def test_initial_values(name):
  module = models.create(name, 7, **SMALL[name], head_bias=-2.5)
  assert module.num_classes == 7
  keys = jnp.stack([jax.random.key(seed) for seed in (0, 0, 1)])
  params, _ = jax.vmap(lambda key: models.initialise(module, key, (4, 4, 1)))(
    keys
  )
  params = jax.tree.leaves(params)
  for x in params:
    np.testing.assert_array_equal(x[0], x[1])
  assert any((x[0] != x[2]).any() for x in params)
  # The head's bias is the only one of this size.
  (bias,) = (x for x in params if x.shape == (3, 7))
  np.testing.assert_array_equal(bias, -2.5)


def test_state_of_a_cnn():
  module = models.create("cnn", 10, widths=(4, 8))
  params, model_state = models.initialise(module, jax.random.key(0), (4, 4, 1))
  assert set(params) == {
    "Conv_0",
    "BatchNorm_0",
    "Conv_1",
    "BatchNorm_1",
    "Head_0",
  }
  assert set(params["Conv_0"]) == {"kernel"}
  assert list(model_state) == ["batch_stats"]
  stats = model_state["batch_stats"]["BatchNorm_1"]
  np.testing.assert_array_equal(stats["mean"], np.zeros(8))
  np.testing.assert_array_equal(stats["var"], np.ones(8))


def test_a_cnn_without_batch_norm_has_no_state():
  module = models.create("cnn", 10, widths=(4,), batch_norm=False)
  params, model_state = models.initialise(module, jax.random.key(0), (4, 4, 1))
  assert model_state == {}
  assert set(params) == {"Conv_0", "Head_0"}
  assert set(params["Conv_0"]) == {"kernel", "bias"}


def test_unknown_name_lists_the_models():
  with pytest.raises(
    ValueError, match=r"'resnet0'.*'cnn', 'mlp', .*'vit_tiny'"
  ):
    models.create("resnet0", 10)


@pytest.mark.parametrize("option", ["width", "parent", "num_clases"])
def test_unknown_option_lists_the_options(option):
  with pytest.raises(
    ValueError, match=rf"'mlp' has no option '{option}'.*'activation'"
  ):
    models.create("mlp", 10, **{option: 3})


def test_a_name_is_registered_once():
  with pytest.raises(ValueError, match="'mlp' is registered already"):
    models.register("mlp", models.MLP)


def test_defaults_of_an_entry_are_checked():
  with pytest.raises(ValueError, match="no option 'patches'"):
    models.register("mlp_patched", models.MLP, patches=4)
  assert "mlp_patched" not in models.names()


def test_an_option_overrides_the_entrys_default():
  assert models.create("vit_tiny", 10).patch_size == 4
  assert models.create("vit_tiny", 10, patch_size=2).patch_size == 2
  assert isinstance(models.create("vit_tiny", 10), nn.Module)
