"""Residual networks, as torchvision lays them out."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from forgetsam._checks import check_choice, check_count
from forgetsam.models._layers import BatchNorm, Head, Images, Logits
from forgetsam.models._options import (
  check_classifier,
  check_flag,
  check_widths,
)

# He et al.'s, for the ReLU and the backward pass; not truncated, as PyTorch's.
_KERNEL_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
# That of PyTorch's linear layers: uniform within 1 / sqrt(fan-in).
_HEAD_INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")

Activations = Float[Array, "batch new_height new_width new_channels"]


class ConvNorm(nn.Module):
  """A convolution without bias, then BatchNorm.

  Padding is the same on both sides, as in PyTorch; JAX's "SAME" pads on one
  side only where the stride is 2.
  """

  width: int
  kernel_size: int  # odd
  stride: int = 1
  zero_scale: bool = False  # BatchNorm's scale starts at zero, not one
  dtype: DTypeLike = "float32"

  @nn.compact
  def __call__(self, x: Images, train: bool) -> Activations:
    """Convolves and normalises a batch of images or activations."""
    x = nn.Conv(
      self.width,
      (self.kernel_size, self.kernel_size),
      strides=self.stride,
      padding=self.kernel_size // 2,
      use_bias=False,
      kernel_init=_KERNEL_INIT,
      dtype=self.dtype,
      name="conv",
    )(x)
    scale_init = nn.initializers.constant(float(not self.zero_scale))
    norm = BatchNorm(scale_init=scale_init, dtype=self.dtype, name="bn")
    return norm(x, use_running_average=not train)


class ResidualBlock(nn.Module):
  """Two or three convolutions beside a shortcut, which is linear.

  The last convolution's BatchNorm starts at a scale of zero: at first, every
  block passes its (resized) input on. A bottleneck is 1x1, 3x3, 1x1 with four
  times as many channels at its end, instead of 3x3, 3x3.
  """

  width: int  # inside the block
  stride: int  # of its first 3x3 convolution
  bottleneck: bool
  dtype: DTypeLike = "float32"

  @nn.compact
  def __call__(self, x: Images, train: bool) -> Activations:
    """Computes the activations after the block."""
    out = 4 * self.width if self.bottleneck else self.width
    # (width, kernel size, stride); the stride in a bottleneck's 3x3 is the
    # difference between version 1.5 and the original.
    layers = [(self.width, 3, self.stride), (out, 3, 1)]
    if self.bottleneck:
      layers = [(self.width, 1, 1), (self.width, 3, self.stride), (out, 1, 1)]
    y = x
    for i, (width, kernel_size, stride) in enumerate(layers, start=1):
      last = i == len(layers)
      y = ConvNorm(
        width,
        kernel_size,
        stride,
        zero_scale=last,
        dtype=self.dtype,
        name=f"layer{i}",
      )(y, train)
      y = y if last else nn.relu(y)
    if self.stride != 1 or x.shape[-1] != out:
      x = ConvNorm(out, 1, self.stride, dtype=self.dtype, name="shortcut")(
        x, train
      )
    return nn.relu(x + y)


class ResNet(nn.Module):
  """A residual network: stem, stages of blocks, mean over space, head.

  Each stage after the first halves the image and doubles the width.

  Attributes:
    num_classes: number of logits.
    stage_sizes: each stage's number of blocks.
    width: number of channels inside the first stage's blocks.
    bottleneck: whether blocks are bottlenecks.
    stem: "imagenet" (7x7 convolution of stride 2, then 3x3 max-pooling of
      stride 2) or "cifar" (3x3 convolution).
    dropout: rate before the head.
    head_bias: initial value of the logits' bias; None draws it as PyTorch's
      linear layers do, uniformly within 1 / sqrt(features).
    remat: whether the backward pass computes each block's activations again,
      instead of keeping them: less memory for a third more work.
    dtype: type of the computation; parameters and logits are float32.

  References:
    He et al., *Deep Residual Learning for Image Recognition*, 2016; the zero
    scales as in Goyal et al., *Accurate, Large Minibatch SGD*, 2017.
  """

  num_classes: int
  stage_sizes: Sequence[int] = (3, 4, 6, 3)
  width: int = 64
  bottleneck: bool = True
  stem: str = "imagenet"
  dropout: float = 0.0
  head_bias: float | None = None
  remat: bool = False
  dtype: DTypeLike = "float32"

  def __post_init__(self) -> None:
    bias = 0.0 if self.head_bias is None else self.head_bias
    check_classifier(self.num_classes, self.dropout, bias, self.dtype)
    check_count("width", self.width)
    check_widths("stage_sizes", self.stage_sizes)
    check_flag("bottleneck", self.bottleneck)
    check_flag("remat", self.remat)
    check_choice("stem", self.stem, ("imagenet", "cifar"))
    super().__post_init__()

  @nn.compact
  def __call__(self, images: Images, *, train: bool = False) -> Logits:
    """Computes the logits of normalised images.

    With `train`, BatchNorm takes and records the batch's statistics, and
    dropout is on, which needs the key "dropout".
    """
    kernel_size, stride = (7, 2) if self.stem == "imagenet" else (3, 1)
    stem = ConvNorm(
      self.width, kernel_size, stride, dtype=self.dtype, name="stem"
    )
    x = nn.relu(stem(images, train))
    if self.stem == "imagenet":
      x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
    block = ResidualBlock
    if self.remat:
      block = nn.remat(ResidualBlock, static_argnums=(2,))  # train
    for stage, size in enumerate(self.stage_sizes):
      for i in range(size):
        x = block(
          self.width * 2**stage,
          stride=2 if stage and not i else 1,
          bottleneck=self.bottleneck,
          dtype=self.dtype,
          name=f"stage{stage}_block{i}",
        )(x, train)
    x = jnp.mean(x, axis=(1, 2))
    x = nn.Dropout(self.dropout, deterministic=not train)(x)
    return Head(
      self.num_classes,
      bias=self.head_bias,
      kernel_init=_HEAD_INIT,
      dtype=self.dtype,
      name="head",
    )(x)
