"""The names that Hugging Face's transformers gives a model's arrays."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flax.linen as nn

from forgetsam import models
from forgetsam.interop._names import Entry, Names
from forgetsam.interop._read import Arrays

_VIT = (
  (r"patch_embed\.proj", "embeddings.patch_embeddings.projection"),
  ("pos_embed", "embeddings.position_embeddings"),
  ("cls_token", "embeddings.cls_token"),
  (r"blocks\.(\d+)\.norm1", r"encoder.layer.\1.layernorm_before"),
  (r"blocks\.(\d+)\.attn\.qkv", r"encoder.layer.\1.attention.attention"),
  (r"blocks\.(\d+)\.attn\.proj", r"encoder.layer.\1.attention.output.dense"),
  (r"blocks\.(\d+)\.norm2", r"encoder.layer.\1.layernorm_after"),
  (r"blocks\.(\d+)\.mlp\.fc1", r"encoder.layer.\1.intermediate.dense"),
  (r"blocks\.(\d+)\.mlp\.fc2", r"encoder.layer.\1.output.dense"),
  ("fc_norm", "layernorm"),
)
_IN_BLOCK = re.compile(r"layer(\d+)\.(\d+)\.(conv|bn|downsample\.)(\d+)(.*)")
# What `config.json` must say, where it says it, for our models to be the same.
_SAME = {
  "vit": {"hidden_act": "gelu", "qkv_bias": True},
  "resnet": {
    "hidden_act": "relu",
    "downsample_in_first_stage": False,
    "downsample_in_bottleneck": False,
  },
}


def names_in(state: Arrays, names: Names, module: nn.Module) -> Names:
  """The names by which a state has a model's arrays.

  Args:
    state: a PyTorch state.
    names: timm's and torchvision's names.
    module: the model.

  Returns:
    `names`, or transformers' where the state has the stem under its name there.
  """
  is_vit = isinstance(module, models.ViT)
  rename = _vit_name if is_vit else _resnet_name
  stem = rename(names.stem)
  for base in ("vit." if is_vit else "resnet.", ""):
    if any(name.endswith(base + stem) for name in state):
      break
  else:
    return names
  head = "classifier" if is_vit else "classifier.1"

  def name_of(name: str) -> str:
    if name.startswith(f"{names.head}."):
      return head + name.removeprefix(names.head)
    return base + rename(name)

  return Names(
    entries=tuple(
      Entry(name_of(old.name), old.paths, old.layout)
      for entry in names.entries
      for old in _split(entry)
    ),
    counters=tuple(map(name_of, names.counters)),
    head=head,
    stem=base + stem,
    positions=name_of("pos_embed") if is_vit else None,
    class_token=name_of("cls_token") if is_vit else None,
    unused=(f"{base}pooler.", f"{base}embeddings.mask_token"),
  )


def check_description(folder: Path, model_name: str, module: nn.Module) -> None:
  """Compares a folder's `config.json` with what weights alone do not tell.

  Raises:
    ValueError: the weights are of another kind of model, or of one that
      computes something else with them.
  """
  path = folder / "config.json"
  if not path.exists():
    return
  try:
    found = dict(json.loads(path.read_text()))
  except (TypeError, ValueError) as error:
    raise ValueError(f"{path} holds no JSON object: {error}") from error
  kind = found.get("model_type")
  if kind is None:  # timm's own, which has no such numbers
    return
  ours = "vit" if isinstance(module, models.ViT) else "resnet"
  expected: dict[str, Any] = {"model_type": ours, **_SAME[ours]}
  if isinstance(module, models.ViT):
    expected["num_attention_heads"] = module.num_heads
  for key, value in expected.items():
    if found.get(key, value) != value:
      raise ValueError(
        f"{path} has {key}={found[key]!r}, and the model {model_name!r} is one "
        f"of {key}={value!r}: choose weights of that kind, or other options"
      )


def _split(entry: Entry) -> Iterator[Entry]:
  """Queries, keys and values, which are three arrays here."""
  if len(entry.paths) == 1:
    yield entry
    return
  start, _, kind = entry.name.rpartition(".")
  for path in entry.paths:
    yield Entry(f"{start}.{path[-2]}.{kind}", (path,), entry.layout)


def _vit_name(name: str) -> str:
  for timm, new in _VIT:
    if re.match(timm, name):
      return re.sub(timm, new, name, count=1)
  return name


def _resnet_name(name: str) -> str:
  if (found := _IN_BLOCK.match(name)) is None:
    name = name.replace("conv1", "embedder.embedder.convolution")
    return name.replace("bn1", "embedder.embedder.normalization")
  stage, block, kind, number, rest = found.groups()
  part, i = f"layer.{int(number) - 1}", int(kind == "bn")
  if kind == "downsample.":
    part, i = "shortcut", int(number)
  role = ("convolution", "normalization")[i]
  return f"encoder.stages.{int(stage) - 1}.layers.{block}.{part}.{role}{rest}"
