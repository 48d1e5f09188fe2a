"""Image classifiers in Flax Linen, by name."""

from forgetsam.models._forward import forward, initialise
from forgetsam.models._norm import BatchNorm
from forgetsam.models._registry import create, names, register
from forgetsam.models.small import CNN, MLP
from forgetsam.models.vit import ViT

register("mlp", MLP)
register("cnn", CNN)
register(
  "vit_tiny", ViT, patch_size=4, width=64, depth=4, num_heads=4, mlp_ratio=2
)

__all__ = [
  "CNN",
  "MLP",
  "BatchNorm",
  "ViT",
  "create",
  "forward",
  "initialise",
  "names",
  "register",
]
