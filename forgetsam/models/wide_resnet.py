"""Wide residual networks for images of 32 pixels."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from forgetsam._checks import check_count
from forgetsam._typing import NDArray
from forgetsam.models._layers import BatchNorm, Head, Images, Logits
from forgetsam.models._options import (
  check_classifier,
  check_flag,
  check_widths,
)
from forgetsam.models.resnet import Activations

# He et al.'s, of the outputs, as in the authors' code.
_KERNEL_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
_STEM = 16


def _conv(
  width: int, size: int, stride: int, dtype: DTypeLike, name: str
) -> nn.Conv:
  return nn.Conv(
    width,
    (size, size),
    strides=stride,
    padding=size // 2,
    use_bias=False,
    kernel_init=_KERNEL_INIT,
    dtype=dtype,
    name=name,
  )


class WideBlock(nn.Module):
  """BatchNorm, ReLU and a 3x3 convolution, twice, beside a shortcut.

  Where the width changes, the shortcut is a 1x1 convolution of what the first
  BatchNorm and ReLU give; else it is the input.
  """

  width: int
  stride: int  # of the first convolution
  dropout: float = 0.0
  dtype: DTypeLike = "float32"

  @nn.compact
  def __call__(self, x: Images, train: bool) -> Activations:
    """Adds what the convolutions find to the shortcut."""

    def activate(x: NDArray, name: str) -> Array:
      norm = BatchNorm(dtype=self.dtype, name=name)
      return nn.relu(norm(x, use_running_average=not train))

    y = activate(x, "bn1")
    if x.shape[-1] != self.width:
      x = _conv(self.width, 1, self.stride, self.dtype, "shortcut")(y)
    y = _conv(self.width, 3, self.stride, self.dtype, "conv1")(y)
    y = activate(y, "bn2")
    y = nn.Dropout(self.dropout, deterministic=not train)(y)
    return _conv(self.width, 3, 1, self.dtype, "conv2")(y) + x


class WideResNet(nn.Module):
  """A wide residual network: three stages of pre-activation blocks.

  A stem of 16 channels, stages that each double the width and, after the first,
  halve the image, then BatchNorm, ReLU, the mean over space and the head.
  WRN-d-k has (d - 4) / 6 blocks a stage and a first width of 16 k.

  Attributes:
    num_classes: number of logits.
    stage_sizes: each stage's number of blocks.
    width: channels of the first stage.
    dropout: rate between a block's convolutions.
    head_bias: initial value of the logits' bias.
    remat: whether the backward pass computes each block's activations again,
      instead of keeping them: less memory for a third more work.
    dtype: type of the computation; parameters and logits are float32.

  References:
    Zagoruyko & Komodakis, *Wide Residual Networks*, 2016, table 1.
  """

  num_classes: int
  stage_sizes: Sequence[int] = (4, 4, 4)
  width: int = 160
  dropout: float = 0.0
  head_bias: float = 0.0
  remat: bool = False
  dtype: DTypeLike = "float32"

  def __post_init__(self) -> None:
    check_classifier(self.num_classes, self.dropout, self.head_bias, self.dtype)
    check_count("width", self.width)
    check_widths("stage_sizes", self.stage_sizes)
    check_flag("remat", self.remat)
    super().__post_init__()

  @nn.compact
  def __call__(self, images: Images, *, train: bool = False) -> Logits:
    """Computes the logits of normalised images.

    With `train`, BatchNorm takes and records the batch's statistics, and
    dropout is on, which needs the key "dropout".
    """
    x = _conv(_STEM, 3, 1, self.dtype, "stem")(images)
    block = WideBlock
    if self.remat:
      block = nn.remat(WideBlock, static_argnums=(2,))  # train
    for stage, size in enumerate(self.stage_sizes):
      for i in range(size):
        x = block(
          self.width * 2**stage,
          stride=2 if stage and not i else 1,
          dropout=self.dropout,
          dtype=self.dtype,
          name=f"stage{stage}_block{i}",
        )(x, train)
    norm = BatchNorm(dtype=self.dtype, name="bn")
    x = nn.relu(norm(x, use_running_average=not train))
    return Head(
      self.num_classes, bias=self.head_bias, dtype=self.dtype, name="head"
    )(jnp.mean(x, axis=(1, 2)))
