"""Image classifiers in Flax Linen, by name."""

from forgetsam.models._forward import features, forward, initialise
from forgetsam.models._layers import BatchNorm
from forgetsam.models._registry import create, names, register
from forgetsam.models.resnet import ResNet
from forgetsam.models.small import CNN, MLP
from forgetsam.models.vit import ViT, resize_positions

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
  "create",
  "features",
  "forward",
  "initialise",
  "names",
  "register",
  "resize_positions",
]
