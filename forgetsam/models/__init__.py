"""Image classifiers in Flax Linen, by name, and models as pure functions."""

from typing import TYPE_CHECKING, Any

from forgetsam.models._forward import features, forward, initialise
from forgetsam.models._layers import BatchNorm
from forgetsam.models._partition import tensor_parallel_rules
from forgetsam.models._registry import create, names, register
from forgetsam.models.resnet import ResNet
from forgetsam.models.small import CNN, MLP
from forgetsam.models.vit import ViT, resize_positions
from forgetsam.models.wide_resnet import WideResNet

if TYPE_CHECKING:
  from forgetsam.models._nnx import from_nnx, nnx_forward

register("mlp", MLP)
register("cnn", CNN)
# For images of 28 or 32 pixels.
register(
  "vit_tiny", ViT, patch_size=4, width=64, depth=4, num_heads=4, mlp_ratio=2
)
register("vit_cifar", ViT, patch_size=4, width=192, depth=12, num_heads=3)
register(
  "resnet18_cifar",
  ResNet,
  stage_sizes=(2, 2, 2, 2),
  bottleneck=False,
  stem="cifar",
)
register("wrn28_10", WideResNet)
# For images of 224 pixels.
register("vit_s16", ViT, patch_size=16)
register("vit_s32", ViT, patch_size=32)
register("resnet50", ResNet, stage_sizes=(3, 4, 6, 3))
register("resnet101", ResNet, stage_sizes=(3, 4, 23, 3))

__all__ = [
  "CNN",
  "MLP",
  "BatchNorm",
  "ResNet",
  "ViT",
  "WideResNet",
  "create",
  "features",
  "forward",
  "from_nnx",
  "initialise",
  "names",
  "nnx_forward",
  "register",
  "resize_positions",
  "tensor_parallel_rules",
]


def __getattr__(name: str) -> Any:
  # Flax's NNX takes a quarter of a second to import.
  if name not in ("from_nnx", "nnx_forward"):
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  from forgetsam.models import _nnx

  return getattr(_nnx, name)
