"""Loaded variables for a model of another head or image size."""

import jax
import numpy as np
import pytest

import forgetsam as fs
from forgetsam import models

OPTIONS = {
  "mlp": {"hidden": (4,)},
  "cnn": {"widths": (2,)},
  "vit_tiny": {"width": 4, "depth": 1, "num_heads": 1},
  "resnet50": {"width": 2, "stage_sizes": (1,)},
}


def _variables(random_variables, name, classes, size=8, scale=0.5, **options):
  module = models.create(name, classes, **{**OPTIONS[name], **options})
  return random_variables(module, (size, size, 1), scale)


@pytest.mark.parametrize("name", OPTIONS)
def test_only_the_head_is_replaced(random_variables, name):
  loaded = _variables(random_variables, name, 10)
  initial = _variables(random_variables, name, 3, scale=0.1)
  variables, changes = fs.interop.adapt(loaded, initial)
  assert changes == ("the head for 10 classes is replaced by a new one for 3",)
  assert variables.keys() == loaded.keys()
  for collection, tree in variables.items():
    for key in tree:
      is_head = key in ("head", "Head_0")
      source = initial if is_head else loaded
      jax.tree.map(
        np.testing.assert_array_equal, tree[key], source[collection][key]
      )


def test_what_fits_is_taken_over(random_variables):
  loaded = _variables(random_variables, "vit_tiny", 3)
  initial = _variables(random_variables, "vit_tiny", 3, scale=0.1)
  variables, changes = fs.interop.adapt(loaded, initial)
  assert changes == ()
  jax.tree.map(np.testing.assert_array_equal, variables, loaded)


def test_head_and_image_size_at_once(random_variables):
  loaded = _variables(random_variables, "vit_tiny", 3)
  initial = _variables(random_variables, "vit_tiny", 5, size=16)
  variables, changes = fs.interop.adapt(loaded, initial)
  assert len(changes) == 2
  positions = variables["params"]["embedding"]["pos_embed"]
  np.testing.assert_array_equal(
    positions,
    models.resize_positions(loaded["params"]["embedding"]["pos_embed"], (4, 4)),
  )


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (
      {"width": 8},
      r"params/head/dense/kernel \(4, 3\) instead of \(8, 3\)",
    ),
    ({"depth": 2}, r"missing: params/block1/attention/key/bias"),
    ({"patch_size": 2}, r"projection/kernel \(4, 4, 1, 4\) instead of \(2, 2,"),
  ],
)
def test_any_other_difference_is_an_error(random_variables, options, message):
  loaded = _variables(random_variables, "vit_tiny", 3)
  initial = _variables(random_variables, "vit_tiny", 3, **options)
  with pytest.raises(ValueError, match=message):
    fs.interop.adapt(loaded, initial)


def test_grids_that_are_not_square_are_left_to_the_caller(random_variables):
  loaded = _variables(random_variables, "vit_tiny", 3)
  module = models.create("vit_tiny", 3, **OPTIONS["vit_tiny"])
  initial = random_variables(module, (8, 12, 1))
  with pytest.raises(ValueError, match=r"6 patches.*resize_positions"):
    fs.interop.adapt(loaded, initial)
