"""Which PyTorch name stands for which of our arrays."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import flax.linen as nn

from forgetsam import models
from forgetsam.interop._layouts import (
  CONV,
  DENSE,
  FUSED_BIAS,
  FUSED_KERNEL,
  SAME,
  Layout,
)

Path = tuple[str, ...]


class Entry(NamedTuple):
  """One array of a PyTorch state.

  Attributes:
    name: its name in timm, torchvision and the paper's official code.
    paths: our arrays', collection first.
    layout: how the two correspond.
  """

  name: str
  paths: tuple[Path, ...]
  layout: Layout


class Names(NamedTuple):
  """A model's arrays by their PyTorch names.

  Attributes:
    entries: all arrays but the counters.
    counters: names of the counts of batches that each BatchNorm has seen, which
      nothing reads where its momentum is a number, as it is here.
    head: prefix of the head's names.
    stem: name of the kernel that reads the image.
    positions: name of the position embeddings, where there are any.
  """

  entries: tuple[Entry, ...]
  counters: tuple[str, ...]
  head: str
  stem: str
  positions: str | None


def torch_names(name: str, module: nn.Module) -> Names:
  """The arrays of a registered model.

  Args:
    name: the model's name, for the error's message.
    module: the model.

  Returns:
    Its arrays by their PyTorch names.

  Raises:
    ValueError: the model is neither a ViT nor a ResNet.
  """
  if isinstance(module, models.ViT):
    entries = tuple(_vit(module))
    return Names(entries, (), "head", "patch_embed.proj.weight", "pos_embed")
  if isinstance(module, models.ResNet):
    entries = tuple(_resnet(module))
    counters = tuple(
      entry.name.replace("running_var", "num_batches_tracked")
      for entry in entries
      if entry.name.endswith("running_var")
    )
    return Names(entries, counters, "fc", "conv1.weight", None)
  raise ValueError(
    f"model_name={name!r} has no PyTorch counterpart; only vision transformers "
    "and ResNets have."
  )


def _params(*path: str) -> tuple[Path, ...]:
  return (("params", *path),)


def _affine(name: str, *path: str, layout: Layout) -> Iterator[Entry]:
  yield Entry(f"{name}.weight", _params(*path, "kernel"), layout)
  yield Entry(f"{name}.bias", _params(*path, "bias"), SAME)


def _norm(name: str, *path: str) -> Iterator[Entry]:
  yield Entry(f"{name}.weight", _params(*path, "scale"), SAME)
  yield Entry(f"{name}.bias", _params(*path, "bias"), SAME)


def _vit(module: models.ViT) -> Iterator[Entry]:
  yield from _affine("patch_embed.proj", "embedding", "projection", layout=CONV)
  yield Entry("pos_embed", _params("embedding", "pos_embed"), SAME)
  for i in range(module.depth):
    name, block = f"blocks.{i}", f"block{i}"
    yield from _norm(f"{name}.norm1", block, "norm1")
    for kind, ours, layout in (
      ("weight", "kernel", FUSED_KERNEL),
      ("bias", "bias", FUSED_BIAS),
    ):
      paths = tuple(
        ("params", block, "attention", part, ours)
        for part in ("query", "key", "value")
      )
      yield Entry(f"{name}.attn.qkv.{kind}", paths, layout)
    yield from _affine(
      f"{name}.attn.proj", block, "attention", "out", layout=DENSE
    )
    yield from _norm(f"{name}.norm2", block, "norm2")
    for i in (1, 2):
      yield from _affine(f"{name}.mlp.fc{i}", block, f"mlp{i}", layout=DENSE)
  yield from _norm("fc_norm", "norm")
  yield from _affine("head", "head", "dense", layout=DENSE)


def _conv_norm(conv: str, norm: str, *path: str) -> Iterator[Entry]:
  yield Entry(f"{conv}.weight", _params(*path, "conv", "kernel"), CONV)
  yield from _norm(norm, *path, "bn")
  for ours in ("mean", "var"):
    stats = ("batch_stats", *path, "bn", ours)
    yield Entry(f"{norm}.running_{ours}", (stats,), SAME)


def _resnet(module: models.ResNet) -> Iterator[Entry]:
  yield from _conv_norm("conv1", "bn1", "stem")
  layers = 3 if module.bottleneck else 2
  for stage, size in enumerate(module.stage_sizes):
    for i in range(size):
      name, block = f"layer{stage + 1}.{i}", f"stage{stage}_block{i}"
      for j in range(1, layers + 1):
        yield from _conv_norm(
          f"{name}.conv{j}", f"{name}.bn{j}", block, f"layer{j}"
        )
      # Each stage's first block changes the size or the number of channels,
      # but for the first stage of blocks that are no bottlenecks.
      if i == 0 and (stage or module.bottleneck):
        shortcut = f"{name}.downsample"
        yield from _conv_norm(
          f"{shortcut}.0", f"{shortcut}.1", block, "shortcut"
        )
  yield from _affine("fc", "head", "dense", layout=DENSE)


def get(tree: Any, path: Path) -> Any:
  """The leaf at a path of nested dictionaries."""
  for key in path:
    tree = tree[key]
  return tree
