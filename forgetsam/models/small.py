"""Small models for small images: a multilayer perceptron and a CNN."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Num

from forgetsam._checks import check_choice
from forgetsam._typing import NDArray
from forgetsam.models._layers import BatchNorm, Head, Images, Logits
from forgetsam.models._options import (
  ACTIVATIONS,
  check_classifier,
  check_flag,
  check_widths,
)

Inputs = Num[NDArray, "batch *shape"]


class MLP(nn.Module):
  """A multilayer perceptron over the flattened image, or any other vector.

  Attributes:
    num_classes: number of logits.
    hidden: the hidden layers' widths.
    activation: "gelu" (exact), "relu" or "tanh".
    dropout: rate after each hidden activation.
    head_bias: initial value of the logits' bias.
    remat: whether the backward pass computes each hidden layer's activations
      again, instead of keeping them: less memory for up to a third more work.
    dtype: type of the computation; parameters and logits are float32.
  """

  num_classes: int
  hidden: Sequence[int] = (256, 256)
  activation: str = "gelu"
  dropout: float = 0.0
  head_bias: float = 0.0
  remat: bool = False
  dtype: DTypeLike = "float32"

  def __post_init__(self) -> None:
    check_classifier(self.num_classes, self.dropout, self.head_bias, self.dtype)
    check_widths("hidden", self.hidden)
    check_flag("remat", self.remat)
    check_choice("activation", self.activation, tuple(ACTIVATIONS))
    super().__post_init__()

  @nn.compact
  def __call__(self, images: Inputs, *, train: bool = False) -> Logits:
    """Computes the logits; `train` turns on dropout (with key "dropout")."""
    x = jnp.reshape(images, (images.shape[0], -1))

    def layer(mdl: "MLP", x: NDArray, i: int) -> Array:
      dense = nn.Dense(mdl.hidden[i], dtype=mdl.dtype, name=f"Dense_{i}")
      x = ACTIVATIONS[mdl.activation](dense(x))
      drop = nn.Dropout(mdl.dropout, name=f"Dropout_{i}")
      return drop(x, deterministic=not train)

    if self.remat:
      layer = nn.remat(layer, static_argnums=(2,))
    for i in range(len(self.hidden)):
      x = layer(self, x, i)
    return Head(self.num_classes, bias=self.head_bias, dtype=self.dtype)(x)


class CNN(nn.Module):
  """3x3 convolutions of stride 2, then the mean over space.

  Strides shrink the image instead of max-pooling, whose gradient is slow on
  CPUs. Padding is one pixel on each side, as in PyTorch; JAX's "SAME" pads on
  one side only where the stride is 2.

  Attributes:
    num_classes: number of logits.
    widths: each convolution's number of channels.
    batch_norm: whether `BatchNorm` follows each convolution.
    dropout: rate before the head.
    head_bias: initial value of the logits' bias.
    remat: whether the backward pass computes each hidden layer's activations
      again, instead of keeping them: less memory for up to a third more work.
    dtype: type of the computation; parameters and logits are float32.
  """

  num_classes: int
  widths: Sequence[int] = (32, 64, 128)
  batch_norm: bool = True
  dropout: float = 0.0
  head_bias: float = 0.0
  remat: bool = False
  dtype: DTypeLike = "float32"

  def __post_init__(self) -> None:
    check_classifier(self.num_classes, self.dropout, self.head_bias, self.dtype)
    check_widths("widths", self.widths)
    check_flag("batch_norm", self.batch_norm)
    check_flag("remat", self.remat)
    super().__post_init__()

  @nn.compact
  def __call__(self, images: Images, *, train: bool = False) -> Logits:
    """Computes the logits of normalised images.

    With `train`, BatchNorm takes and records the batch's statistics, and
    dropout is on, which needs the key "dropout".
    """

    def layer(mdl: "CNN", x: NDArray, i: int) -> Array:
      x = nn.Conv(
        mdl.widths[i],
        (3, 3),
        strides=2,
        padding=1,
        use_bias=not mdl.batch_norm,  # BatchNorm would subtract it again
        kernel_init=nn.initializers.he_normal(),
        dtype=mdl.dtype,
        name=f"Conv_{i}",
      )(x)
      if mdl.batch_norm:
        norm = BatchNorm(dtype=mdl.dtype, name=f"BatchNorm_{i}")
        x = norm(x, use_running_average=not train)
      return nn.relu(x)

    if self.remat:
      layer = nn.remat(layer, static_argnums=(2,))
    x: NDArray = images
    for i in range(len(self.widths)):
      x = layer(self, x, i)
    pooled = jnp.mean(x, axis=(1, 2))
    pooled = nn.Dropout(self.dropout, deterministic=not train)(pooled)
    head = Head(self.num_classes, bias=self.head_bias, dtype=self.dtype)
    return head(pooled)
