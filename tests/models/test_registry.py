"""Names, options, parameter counts and initial values of registered models."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from forgetsam import models

# Parameters of each model under its default options, on 28 x 28 grey images
# and 10 classes; the arithmetic is spelled out where it fits.
PARAMETER_COUNTS = {
  # 784 * 256 + 256, 256 * 256 + 256, 256 * 10 + 10
  "mlp": 200_960 + 65_792 + 2_570,
  # 9 * (1 * 32 + 32 * 64 + 64 * 128), scale and bias of 32 + 64 + 128
  # channels, 128 * 10 + 10
  "cnn": 92_448 + 448 + 1_290,
  # 16 * 64 + 64 of the patches, 49 * 64 of the positions; per block 2 * 128
  # of the norms, 4 * (64 * 64 + 64) of attention, 64 * 128 + 128 and
  # 128 * 64 + 64; 128 of the last norm, 64 * 10 + 10
  "vit_tiny": 1_088 + 3_136 + 4 * (256 + 16_640 + 8_320 + 8_256) + 128 + 650,
}

# Small variants: what they test does not depend on the size.
SMALL = {
  "mlp": {"hidden": (4,)},
  "cnn": {"widths": (4,)},
  "vit_tiny": {"width": 4, "depth": 1, "num_heads": 1},
}


def _initialise(name, num_classes=10, seed=0, **options):
  module = models.create(name, num_classes, **options)
  return models.initialise(module, jax.random.key(seed), (8, 8, 1))


def test_every_model_has_a_golden_parameter_count():
  assert set(PARAMETER_COUNTS) == set(models.names())


@pytest.mark.parametrize("name", models.names())
def test_parameter_count(name):
  module = models.create(name, 10)
  images = jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32)
  variables = jax.eval_shape(module.init, jax.random.key(0), images)
  count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
  assert count == PARAMETER_COUNTS[name]


@pytest.mark.parametrize("name", models.names())
def test_number_of_classes(name):
  module = models.create(name, 7, **SMALL[name])
  assert module.num_classes == 7
  params, _ = _initialise(name, 7, **SMALL[name], head_bias=-2.5)
  # The head's is the only bias of this size; it starts where it is told.
  biases = [x for x in jax.tree.leaves(params) if x.shape == (7,)]
  assert len(biases) == 1
  np.testing.assert_array_equal(biases[0], -2.5)


@pytest.mark.parametrize("name", models.names())
def test_initial_values_follow_the_key(name):
  first, again, other = (
    jax.tree.leaves(_initialise(name, seed=seed, **SMALL[name])[0])
    for seed in (0, 0, 1)
  )
  for x, y in zip(first, again, strict=True):
    np.testing.assert_array_equal(x, y)
  assert any((x != y).any() for x, y in zip(first, other, strict=True))


def test_cnn_without_batch_norm_has_biases_and_no_state():
  params, model_state = _initialise("cnn", widths=(4,), batch_norm=False)
  assert model_state == {}
  assert {name.split("_")[0] for name in params} == {"Conv", "Head"}
  assert params["Conv_0"]["bias"].shape == (4,)


def test_cnn_with_batch_norm_has_state():
  _, model_state = _initialise("cnn", widths=(4, 8))
  assert list(model_state) == ["batch_stats"]
  stats = model_state["batch_stats"]["BatchNorm_1"]
  np.testing.assert_array_equal(stats["mean"], np.zeros(8))
  np.testing.assert_array_equal(stats["var"], np.ones(8))


def test_unknown_name_lists_the_models():
  with pytest.raises(ValueError, match=r"'resnet0'.*'cnn', 'mlp', 'vit_tiny'"):
    models.create("resnet0", 10)


@pytest.mark.parametrize("option", ["width", "parent", "num_clases"])
def test_unknown_option_lists_the_options(option):
  with pytest.raises(
    ValueError, match=rf"'mlp' has no option '{option}'.*'activation'"
  ):
    models.create("mlp", 10, **{option: 3})


@pytest.mark.parametrize(
  ("name", "options"),
  [
    ("mlp", {"num_classes": 0}),
    ("mlp", {"activation": "swish"}),
    ("mlp", {"dropout": 1.0}),
    ("mlp", {"dropout": -0.1}),
    ("mlp", {"dropout": "0.1"}),
    ("mlp", {"dropout": float("nan")}),
    ("mlp", {"hidden": (16, 0)}),
    ("mlp", {"hidden": 16}),
    ("mlp", {"hidden": "16"}),
    ("mlp", {"head_bias": "low"}),
    ("mlp", {"head_bias": float("inf")}),
    ("mlp", {"dtype": "int8"}),
    ("mlp", {"dtype": "float23"}),
    ("cnn", {"num_classes": -1}),
    ("cnn", {"widths": (8.0,)}),
    ("cnn", {"batch_norm": "no"}),
    ("cnn", {"dropout": 2}),
    ("cnn", {"head_bias": None}),
    ("cnn", {"dtype": "bool"}),
    ("vit_tiny", {"num_classes": True}),
    ("vit_tiny", {"patch_size": 0}),
    ("vit_tiny", {"depth": 1.5}),
    ("vit_tiny", {"num_heads": 5}),
    ("vit_tiny", {"mlp_ratio": 0}),
    ("vit_tiny", {"dropout": 1}),
    ("vit_tiny", {"head_bias": "x"}),
    ("vit_tiny", {"dtype": "complex64"}),
  ],
)
def test_impossible_options_are_refused_at_creation(name, options):
  (option,) = options
  arguments = {"num_classes": 10, **options}
  with pytest.raises(ValueError, match=option):
    models.create(name, **arguments)


def test_the_empty_mlp_is_a_linear_model():
  params, _ = _initialise("mlp", hidden=())
  assert list(params) == ["Head_0"]


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
