"""Names and layouts of our arrays in PyTorch's states."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np
from jaxtyping import Shaped

from forgetsam import models

Array = Shaped[np.ndarray, "..."]
Shape = tuple[int, ...]
Path = tuple[str, ...]


class Layout(NamedTuple):
  """A rearrangement of one array, and its inverse."""

  to_torch: Callable[[Array], Array]
  to_ours: Callable[[Array, Shape], Array]  # of PyTorch's array and our shape


# Position embeddings, vectors.
SAME = Layout(lambda x: x, lambda x, shape: x.reshape(shape))
# Queries', keys' and values' biases [heads, size] as [heads size].
FLAT = Layout(lambda x: x.reshape(-1), lambda x, shape: x.reshape(shape))
# [h, w, in, out] as [out, in, h, w].
CONV = Layout(
  lambda x: x.transpose(3, 2, 0, 1), lambda x, _: x.transpose(2, 3, 1, 0)
)
# [..., out] as [out, in].
DENSE = Layout(
  lambda x: x.reshape(-1, x.shape[-1]).T, lambda x, shape: x.T.reshape(shape)
)
# Queries, keys and values [in, heads, size] as [heads size, in].
HEADS = Layout(
  lambda x: x.reshape(x.shape[0], -1).T, lambda x, shape: x.T.reshape(shape)
)


class Entry(NamedTuple):
  """One array of a PyTorch state, which joins one or three of ours."""

  name: str  # such as that in timm, torchvision and the official code
  paths: tuple[Path, ...]  # our arrays', collection first
  layout: Layout  # of each of ours before they are joined along the first axis

  def to_torch(self, variables: Any) -> Array:
    """PyTorch's array of our variables."""
    ours = (np.asarray(get(variables, path)) for path in self.paths)
    return np.concatenate([self.layout.to_torch(x) for x in ours])

  def to_ours(self, array: Array, shapes: Any) -> dict[Path, Array]:
    """Our arrays of PyTorch's, given leaves of our shapes."""
    parts = np.split(array, len(self.paths))
    return {
      path: self.layout.to_ours(x, get(shapes, path).shape)
      for path, x in zip(self.paths, parts, strict=True)
    }


class Names(NamedTuple):
  """A model's arrays by their PyTorch names."""

  entries: tuple[Entry, ...]  # all arrays but the counters
  # Of the batches that each BatchNorm has seen, which nothing reads where its
  # momentum is a number, as it is here.
  counters: tuple[str, ...]
  head: str  # prefix of the head's names
  stem: str  # name of the kernel that reads the image
  positions: str | None  # name of the position embeddings
  class_token: str | None = None  # its name, in files that have one
  unused: tuple[str, ...] = ()  # starts of names that only other files read

  def without_head(self) -> "Names":
    """The names of all arrays but the head's."""
    start = f"{self.head}."
    kept = (one for one in self.entries if not one.name.startswith(start))
    return self._replace(entries=tuple(kept))


def torch_names(name: str, module: nn.Module) -> Names:
  """The arrays of a registered ViT or ResNet."""
  if isinstance(module, models.ViT):
    entries = tuple(_vit(module))
    return Names(
      entries,
      counters=(),
      head="head",
      stem="patch_embed.proj.weight",
      positions="pos_embed",
      class_token="cls_token",
    )
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
      ("weight", "kernel", HEADS),
      ("bias", "bias", FLAT),
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
