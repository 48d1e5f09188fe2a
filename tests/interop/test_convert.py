"""Names and layouts, exact round trips, and what is refused."""

import logging

import jax
import numpy as np
import pytest
import safetensors.numpy
from torch_states import (
  RESNET_NAME,
  TINY_RESNET,
  TINY_RESNET_SHAPES,
  TINY_VIT,
  TINY_VIT_SHAPES,
  VIT_NAME,
  draw,
)

import forgetsam as fs
from forgetsam import models

CASES = {
  VIT_NAME: (TINY_VIT, TINY_VIT_SHAPES, (8, 8, 1)),
  RESNET_NAME: (TINY_RESNET, TINY_RESNET_SHAPES, (8, 8, 3)),
}


def _import(name, state, **options):
  return fs.interop.from_torch(name, state, **{**CASES[name][0], **options})


@pytest.fixture(params=CASES)
def name(request):
  return request.param


@pytest.fixture
def state(name):
  return draw(CASES[name][1])


def test_variables_are_those_of_the_model(name, state):
  options, _, image_shape = CASES[name]
  module = models.create(name, 3, **options)
  expected = jax.eval_shape(
    module.init,
    jax.random.key(0),
    jax.ShapeDtypeStruct((1, *image_shape), "float32"),
  )
  variables = _import(name, state)
  assert jax.tree.structure(variables) == jax.tree.structure(expected)
  for leaf, wanted in zip(
    jax.tree.leaves(variables), jax.tree.leaves(expected), strict=True
  ):
    assert isinstance(leaf, jax.Array)
    assert (leaf.shape, leaf.dtype) == (wanted.shape, wanted.dtype)


def test_from_torch_and_back_is_exact(name, state):
  back = fs.interop.to_torch(name, _import(name, state), **CASES[name][0])
  assert back.keys() == state.keys()
  for key, value in state.items():
    assert back[key].dtype == value.dtype
    assert back[key].flags.c_contiguous
    assert back[key].flags.writeable
    assert back[key].tobytes() == value.tobytes(), key


def test_to_torch_and_back_is_exact(name, random_variables, tmp_path):
  options, shapes, image_shape = CASES[name]
  module = models.create(name, 3, **options)
  variables = random_variables(module, image_shape)
  state = fs.interop.to_torch(name, variables, **options)
  assert {k: v.shape for k, v in state.items()} == shapes
  file = tmp_path / "weights.safetensors"
  safetensors.numpy.save_file(state, file)
  back = _import(name, str(file))
  assert jax.tree.structure(back) == jax.tree.structure(variables)
  jax.tree.map(np.testing.assert_array_equal, back, variables)


def test_queries_keys_and_values_come_apart():
  state = draw(TINY_VIT_SHAPES)
  params = _import(VIT_NAME, state)["params"]["block0"]["attention"]
  kernel, bias = (
    state[f"blocks.0.attn.qkv.{kind}"] for kind in ("weight", "bias")
  )
  x = np.arange(4.0, dtype="float32")
  for i, part in enumerate(("query", "key", "value")):
    rows = slice(4 * i, 4 * i + 4)
    expected = kernel[rows] @ x + bias[rows]
    # Heads of two: the first two outputs belong to the first head.
    actual = np.einsum("i,ihd->hd", x, params[part]["kernel"])
    actual = actual + params[part]["bias"]
    np.testing.assert_allclose(actual, expected.reshape(2, 2), rtol=1e-5)


def test_some_arrays_by_hand():
  state = draw(TINY_RESNET_SHAPES)
  variables = _import(RESNET_NAME, state)
  shortcut = variables["params"]["stage1_block0"]["shortcut"]
  kernel = state["layer2.0.downsample.0.weight"]
  assert shortcut["conv"]["kernel"][0, 0, 1, 3] == kernel[3, 1, 0, 0]
  second = variables["params"]["stage1_block0"]["layer2"]
  kernel = state["layer2.0.conv2.weight"]
  assert second["conv"]["kernel"][2, 0, 1, 3] == kernel[3, 1, 2, 0]
  stats = variables["batch_stats"]["stage0_block0"]["layer1"]["bn"]
  np.testing.assert_array_equal(stats["var"], state["layer1.0.bn1.running_var"])
  np.testing.assert_array_equal(
    stats["mean"], state["layer1.0.bn1.running_mean"]
  )
  head = variables["params"]["head"]["dense"]
  np.testing.assert_array_equal(head["kernel"], state["fc.weight"].T)


def test_counters_are_not_needed_and_come_back_as_zero():
  state = draw(TINY_RESNET_SHAPES)
  counted = {
    k: np.int64(7) if k.endswith("tracked") else v for k, v in state.items()
  }
  bare = {k: v for k, v in state.items() if not k.endswith("tracked")}
  for given in (counted, bare):
    variables = _import(RESNET_NAME, given)
    back = fs.interop.to_torch(RESNET_NAME, variables, **TINY_RESNET)
    assert back.keys() == state.keys()
    counts = {int(v) for k, v in back.items() if k.endswith("tracked")}
    assert counts == {0}


def test_every_name_that_does_not_fit_is_listed(name, state):
  state = dict(state)
  first, second, *_ = sorted(k for k in state if k.endswith("bias"))
  del state[first]
  state[second] = np.zeros(9, "float32")
  state["cls_token"] = np.zeros((1, 1, 4), "float32")
  pattern = (
    rf"'{name}' does not fit\. missing: {first}; unexpected: cls_token; "
    rf"of another shape: {second} \(9,\) instead of \(\d+,\)\."
  )
  with pytest.raises(ValueError, match=pattern):
    _import(name, state)


def test_a_class_token_is_refused_by_name():
  # As timm's own ViTs come: a token more, and the norm before pooling.
  state = draw(TINY_VIT_SHAPES)
  state["cls_token"] = np.zeros((1, 1, 4), "float32")
  state["pos_embed"] = np.zeros((1, 5, 4), "float32")
  for kind in ("weight", "bias"):
    state[f"norm.{kind}"] = state.pop(f"fc_norm.{kind}")
  with pytest.raises(
    ValueError,
    match=r"missing: fc_norm.bias, fc_norm.weight; unexpected: cls_token, "
    r"norm.bias, norm.weight\.",
  ):
    _import(VIT_NAME, state)


def test_missing_and_odd_arrays_are_an_error_too(name):
  with pytest.raises(ValueError, match=r"missing: .*weight"):
    _import(name, {})
  odd = {key: np.float32(0) for key in CASES[name][1]}
  with pytest.raises(ValueError, match="of another shape"):
    _import(name, odd)


def test_another_depth_is_refused():
  with pytest.raises(ValueError, match=r"missing: blocks\.1\.attn"):
    _import(VIT_NAME, draw(TINY_VIT_SHAPES), depth=2)


def test_integers_are_no_weights(name, state):
  (key, *_) = sorted(state)
  state[key] = np.ones(state[key].shape, np.int64)
  with pytest.raises(ValueError, match=f"{key}.*int64"):
    _import(name, state)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_precisions_become_float32(dtype):
  state = {k: v.astype(dtype) for k, v in draw(TINY_VIT_SHAPES).items()}
  params = _import(VIT_NAME, state)["params"]
  bias = params["head"]["dense"]["bias"]
  assert bias.dtype == np.float32
  np.testing.assert_array_equal(bias, state["head.bias"].astype("float32"))


def test_variables_that_do_not_fit_are_listed(name, state):
  variables = _import(name, state)
  del variables["params"]["head"]["dense"]["bias"]
  variables["params"]["extra"] = {"kernel": np.zeros(3)}
  with pytest.raises(
    ValueError, match="missing: params/head/dense/bias; unexpected: params/ex"
  ):
    fs.interop.to_torch(name, variables, **CASES[name][0])


def test_models_without_a_counterpart():
  for convert in (fs.interop.from_torch, fs.interop.to_torch):
    with pytest.raises(ValueError, match="'mlp' has no PyTorch counterpart"):
      convert("mlp", {})


def test_a_head_of_another_size_is_replaced_and_said_so(name, state, caplog):
  options, _, image_shape = CASES[name]
  key = jax.random.key(5)
  with caplog.at_level(logging.WARNING):
    variables = _import(name, state, num_classes=7, key=key)
  assert "head for 3 classes is replaced by a new one for 7" in caplog.text
  # The very head that a new model would have had.
  module = models.create(name, 7, **options)
  fresh, _ = models.initialise(module, key, image_shape)
  jax.tree.map(
    np.testing.assert_array_equal, variables["params"]["head"], fresh["head"]
  )
  kept = _import(name, state)
  for tree in (variables, kept):
    del tree["params"]["head"]
  jax.tree.map(np.testing.assert_array_equal, variables, kept)


def test_a_head_of_the_same_size_is_kept_in_silence(name, state, caplog):
  with caplog.at_level(logging.WARNING):
    variables = _import(name, state, num_classes=3)
  assert not caplog.text
  jax.tree.map(np.testing.assert_array_equal, variables, _import(name, state))


def test_a_new_head_starts_at_the_bias_that_is_asked_for():
  variables = _import(
    VIT_NAME, draw(TINY_VIT_SHAPES), num_classes=10, head_bias=-2.3
  )
  head = variables["params"]["head"]["dense"]
  np.testing.assert_array_equal(head["kernel"], np.zeros((4, 10)))
  np.testing.assert_array_equal(head["bias"], np.full(10, np.float32(-2.3)))


def test_positions_for_another_image_size(caplog):
  state = draw(TINY_VIT_SHAPES)
  with caplog.at_level(logging.WARNING):
    variables = _import(VIT_NAME, state, image_size=12)
  assert "interpolated from (2, 2) to (3, 3) patches" in caplog.text
  positions = variables["params"]["embedding"]["pos_embed"]
  np.testing.assert_array_equal(
    positions, models.resize_positions(state["pos_embed"], (3, 3))
  )
  module = models.create(VIT_NAME, 3, **TINY_VIT)
  logits = module.apply(variables, np.ones((1, 12, 12, 1), "float32"))
  assert logits.shape == (1, 3)
