"""Weights as transformers and timm save them: names, folders, class tokens."""

import json
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

BLOCK = "vit.encoder.layer.0"
# transformers' names of timm's arrays.
VIT_NAMES = {
  "patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
  "blocks.0.norm1": f"{BLOCK}.layernorm_before",
  "blocks.0.attn.proj": f"{BLOCK}.attention.output.dense",
  "blocks.0.norm2": f"{BLOCK}.layernorm_after",
  "blocks.0.mlp.fc1": f"{BLOCK}.intermediate.dense",
  "blocks.0.mlp.fc2": f"{BLOCK}.output.dense",
  "fc_norm": "vit.layernorm",
  "head": "classifier",
}
STAGES = "resnet.encoder.stages"
RESNET_NAMES = {
  "conv1": "resnet.embedder.embedder.convolution",
  "bn1": "resnet.embedder.embedder.normalization",
  "layer1.0.conv1": f"{STAGES}.0.layers.0.layer.0.convolution",
  "layer1.0.bn1": f"{STAGES}.0.layers.0.layer.0.normalization",
  "layer1.0.conv2": f"{STAGES}.0.layers.0.layer.1.convolution",
  "layer1.0.bn2": f"{STAGES}.0.layers.0.layer.1.normalization",
  "layer2.0.conv1": f"{STAGES}.1.layers.0.layer.0.convolution",
  "layer2.0.bn1": f"{STAGES}.1.layers.0.layer.0.normalization",
  "layer2.0.conv2": f"{STAGES}.1.layers.0.layer.1.convolution",
  "layer2.0.bn2": f"{STAGES}.1.layers.0.layer.1.normalization",
  "layer2.0.downsample.0": f"{STAGES}.1.layers.0.shortcut.convolution",
  "layer2.0.downsample.1": f"{STAGES}.1.layers.0.shortcut.normalization",
  "fc": "classifier.1",
}


def vit_state():
  """The tiny ViT in transformers' names, with a class token as all have it."""
  timm = draw(TINY_VIT_SHAPES)
  qkv = {
    kind: np.split(timm.pop(f"blocks.0.attn.qkv.{kind}"), 3)
    for kind in ("weight", "bias")
  }
  positions = timm.pop("pos_embed")
  state = {}
  for name, array in timm.items():
    module, _, kind = name.rpartition(".")
    state[f"{VIT_NAMES[module]}.{kind}"] = array
  for kind, parts in qkv.items():
    for part, array in zip(("query", "key", "value"), parts, strict=True):
      state[f"{BLOCK}.attention.attention.{part}.{kind}"] = array
  first = np.full((1, 1, 4), 9, np.float32)
  state["vit.embeddings.cls_token"] = first
  state["vit.embeddings.position_embeddings"] = np.concatenate(
    [first, positions], axis=1
  )
  return state


def resnet_state():
  state = {}
  for name, array in draw(TINY_RESNET_SHAPES).items():
    module, _, kind = name.rpartition(".")
    state[f"{RESNET_NAMES[module]}.{kind}"] = array
  return state


CASES = {
  VIT_NAME: (TINY_VIT, vit_state, TINY_VIT_SHAPES),
  RESNET_NAME: (TINY_RESNET, resnet_state, TINY_RESNET_SHAPES),
}
CONFIGS = {
  VIT_NAME: {"model_type": "vit", "num_attention_heads": 2},
  RESNET_NAME: {"model_type": "resnet", "downsample_in_bottleneck": False},
}


@pytest.fixture(params=CASES)
def name(request):
  return request.param


def convert(name, source, **options):
  return fs.interop.from_torch(
    name, source, strict=False, **{**CASES[name][0], **options}
  )


def same(tree, other):
  assert jax.tree.structure(tree) == jax.tree.structure(other)
  jax.tree.map(np.testing.assert_array_equal, tree, other)


def expected(name):
  options, _, shapes = CASES[name]
  return fs.interop.from_torch(name, draw(shapes), **options)


def test_names_of_transformers(name, caplog):
  with caplog.at_level(logging.WARNING):
    same(convert(name, CASES[name][1]()), expected(name))
  left_out = "vit.embeddings.cls_token: left out, with its position"
  assert (left_out in caplog.text) == (name == VIT_NAME)
  assert ("norm is taken after" in caplog.text) == (name == VIT_NAME)


def test_a_model_without_a_head(name, caplog):
  bare = {
    key.removeprefix("vit.").removeprefix("resnet."): value
    for key, value in CASES[name][1]().items()
    if not key.startswith("classifier")
  }
  bare |= {"pooler.dense.weight": np.ones((4, 4))} if name == VIT_NAME else {}
  with caplog.at_level(logging.WARNING):
    variables = convert(name, bare)
  assert ("pooler.dense.weight: left out" in caplog.text) == (name == VIT_NAME)
  whole = expected(name)
  head = whole["params"].pop("head")
  same(variables, whole)
  # With a number of classes, a new head is drawn.
  new = convert(name, bare, num_classes=7)["params"].pop("head")
  assert new["dense"]["kernel"].shape == (len(head["dense"]["kernel"]), 7)
  assert "there is no head, and a new one is taken" in caplog.text
  with pytest.raises(ValueError, match=r"missing: .*classifier.*weight"):
    fs.interop.from_torch(name, bare, **CASES[name][0])


def test_names_and_shapes_that_do_not_fit_are_the_files_own(name):
  state = CASES[name][1]()
  first, second, *_ = sorted(k for k in state if k.endswith("bias"))
  state[second] = np.zeros(9, np.float32)
  del state[first]
  with pytest.raises(ValueError, match=rf"missing: {first}; .*{second} \(9,\)"):
    convert(name, state)


def test_timms_class_token_is_left_out_where_that_is_asked_for(caplog):
  state = draw(TINY_VIT_SHAPES)
  for kind in ("weight", "bias"):
    state[f"norm.{kind}"] = state.pop(f"fc_norm.{kind}")
  state["cls_token"] = np.ones((1, 1, 4), np.float32)
  unembedded = dict(state)  # timm's `no_embed_class`
  first = np.full((1, 1, 4), 9, np.float32)
  state["pos_embed"] = np.concatenate([first, state["pos_embed"]], axis=1)
  for given in (state, unembedded):
    with caplog.at_level(logging.WARNING):
      same(convert(VIT_NAME, given), expected(VIT_NAME))
    assert "cls_token: left out" in caplog.text
    assert "norm is taken after the tokens' mean" in caplog.text
    caplog.clear()
  with pytest.raises(ValueError, match=r"unexpected: cls_token.*strict=False"):
    fs.interop.from_torch(VIT_NAME, state, **TINY_VIT)


def save(folder, name, **described):
  config = {**CONFIGS[name], **described}
  (folder / "config.json").write_text(json.dumps(config))
  safetensors.numpy.save_file(CASES[name][1](), folder / "model.safetensors")
  return folder


def test_a_folder_as_it_is_saved(name, tmp_path):
  same(convert(name, save(tmp_path, name)), expected(name))


def test_a_folder_of_several_files(name, tmp_path):
  state, places = CASES[name][1](), {}
  for i, key in enumerate(sorted(state)):
    places[key] = f"model-0000{i % 2 + 1}-of-00002.safetensors"
  for file in set(places.values()):
    part = {k: v for k, v in state.items() if places[k] == file}
    safetensors.numpy.save_file(part, tmp_path / file)
  index = tmp_path / "model.safetensors.index.json"
  index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
  same(convert(name, str(tmp_path)), expected(name))
  (tmp_path / file).unlink()
  with pytest.raises(ValueError, match=file):
    convert(name, tmp_path)
  index.write_text("[]")
  with pytest.raises(ValueError, match=r"index\.json lists no files"):
    convert(name, tmp_path)


@pytest.mark.parametrize(
  ("name", "described"),
  [
    (VIT_NAME, {"num_attention_heads": 4}),
    (VIT_NAME, {"hidden_act": "gelu_new"}),
    (RESNET_NAME, {"downsample_in_bottleneck": True}),
    (RESNET_NAME, {"model_type": "regnet"}),
  ],
)
def test_what_only_the_description_tells_is_refused(name, described, tmp_path):
  ((key, value),) = described.items()
  with pytest.raises(ValueError, match=rf"config\.json has {key}={value!r}"):
    convert(name, save(tmp_path, name, **described))


def test_folders_without_weights(tmp_path):
  with pytest.raises(ValueError, match=r"folder with none of model\.safetens"):
    convert(VIT_NAME, tmp_path)
  save(tmp_path, VIT_NAME)
  (tmp_path / "config.json").write_text("[1")
  with pytest.raises(ValueError, match=r"config\.json holds no JSON object"):
    convert(VIT_NAME, tmp_path)
