"""States of PyTorch models, made from their names and shapes."""

import functools
import json
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parents[1] / "golden" / "model_logits.npz"


def draw(shapes):
  """The weights that the golden README describes."""
  state = {}
  for j, name in enumerate(sorted(shapes)):
    shape = tuple(shapes[name])
    n = np.random.RandomState(2024 + j).standard_normal(shape)
    if name.endswith("num_batches_tracked"):
      state[name] = np.zeros((), np.int64)
      continue
    if name == "pos_embed":
      value = 0.02 * n
    elif len(shape) >= 2:
      value = n / np.sqrt(np.prod(shape[1:]))
    elif name.endswith("running_var"):
      value = 1 + 0.1 * np.abs(n)
    elif name.endswith("running_mean"):
      value = 0.1 * n
    elif name.endswith("weight"):
      value = 1 + 0.1 * n
    else:
      value = 0.1 * n
    state[name] = np.asarray(value, np.float32)
  return state


VIT_NAME, RESNET_NAME = "vit_cifar", "resnet18_cifar"

# A vit_cifar of width 4 with one block, for 8x8 grey images and 3 classes, with
# the names and shapes that timm gives it.
TINY_VIT = {"width": 4, "depth": 1, "num_heads": 2, "mlp_ratio": 2}
TINY_VIT_SHAPES = {
  "patch_embed.proj.weight": (4, 1, 4, 4),
  "patch_embed.proj.bias": (4,),
  "pos_embed": (1, 4, 4),
  "blocks.0.norm1.weight": (4,),
  "blocks.0.norm1.bias": (4,),
  "blocks.0.attn.qkv.weight": (12, 4),
  "blocks.0.attn.qkv.bias": (12,),
  "blocks.0.attn.proj.weight": (4, 4),
  "blocks.0.attn.proj.bias": (4,),
  "blocks.0.norm2.weight": (4,),
  "blocks.0.norm2.bias": (4,),
  "blocks.0.mlp.fc1.weight": (8, 4),
  "blocks.0.mlp.fc1.bias": (8,),
  "blocks.0.mlp.fc2.weight": (4, 8),
  "blocks.0.mlp.fc2.bias": (4,),
  "fc_norm.weight": (4,),
  "fc_norm.bias": (4,),
  "head.weight": (3, 4),
  "head.bias": (3,),
}

# A resnet18_cifar of width 2 with two stages of one block.
TINY_RESNET = {"width": 2, "stage_sizes": (1, 1)}


def _norm(name, channels):
  parts = ("weight", "bias", "running_mean", "running_var")
  shapes = {f"{name}.{part}": (channels,) for part in parts}
  return {**shapes, f"{name}.num_batches_tracked": ()}


TINY_RESNET_SHAPES = {
  "conv1.weight": (2, 3, 3, 3),
  **_norm("bn1", 2),
  "layer1.0.conv1.weight": (2, 2, 3, 3),
  **_norm("layer1.0.bn1", 2),
  "layer1.0.conv2.weight": (2, 2, 3, 3),
  **_norm("layer1.0.bn2", 2),
  "layer2.0.conv1.weight": (4, 2, 3, 3),
  **_norm("layer2.0.bn1", 4),
  "layer2.0.conv2.weight": (4, 4, 3, 3),
  **_norm("layer2.0.bn2", 4),
  "layer2.0.downsample.0.weight": (4, 2, 1, 1),
  **_norm("layer2.0.downsample.1", 4),
  "fc.weight": (3, 4),
  "fc.bias": (3,),
}


@functools.cache
def golden():
  """The arrays of the reference implementation."""
  with np.load(GOLDEN) as archive:
    return dict(archive)


def golden_state(name):
  """The weights of one of the reference implementation's models."""
  return draw(json.loads(str(golden()[f"{name}/state_keys"])))
