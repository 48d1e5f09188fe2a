"""Vision transformers without a class token."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from forgetsam._checks import check_count
from forgetsam._typing import NDArray
from forgetsam.models._layers import Head, Images, Logits
from forgetsam.models._options import ACTIVATIONS, check_classifier, check_flag

Grid = tuple[int, int]

_EPSILON = 1e-6  # of every LayerNorm
_KERNEL_INIT = nn.initializers.xavier_uniform()


class PatchEmbedding(nn.Module):
  """Embeds square patches of the image, with their positions."""

  patch_size: int
  width: int
  dtype: DTypeLike = "float32"

  @nn.compact
  def __call__(self, images: Images) -> Float[Array, "batch tokens features"]:
    """Makes one token per patch, row by row."""
    batch, height, width, _ = images.shape
    if height % self.patch_size or width % self.patch_size:
      raise ValueError(
        f"patch_size={self.patch_size} must divide the image's height and "
        f"width, which are {height} and {width}"
      )
    x = nn.Conv(
      self.width,
      (self.patch_size, self.patch_size),
      strides=self.patch_size,
      padding="VALID",
      kernel_init=nn.initializers.lecun_normal(),
      dtype=self.dtype,
      name="projection",
    )(images)
    x = x.reshape(batch, -1, self.width)
    positions = self.param(
      "pos_embed",
      nn.initializers.normal(self.width**-0.5),
      (1, x.shape[1], self.width),
      jnp.float32,
    )
    return x + positions.astype(x.dtype)


class EncoderBlock(nn.Module):
  """Self-attention, then a two-layer perceptron, each on normalised tokens.

  Queries, keys and values are initialised separately: as one joint kernel,
  they would have another fan-out and smaller entries. Dropout follows the
  attention, the hidden layer and the perceptron.
  """

  num_heads: int
  mlp_width: int
  dropout: float = 0.0
  dtype: DTypeLike = "float32"

  @nn.compact
  def __call__(
    self, x: Float[Array, "batch tokens features"], train: bool
  ) -> Float[Array, "batch tokens features"]:
    """Adds what attention and the perceptron find to the tokens."""

    def drop(y: Array) -> Array:
      return nn.Dropout(self.dropout, deterministic=not train)(y)

    def dense(width: int, name: str) -> nn.Dense:
      return nn.Dense(
        width, kernel_init=_KERNEL_INIT, dtype=self.dtype, name=name
      )

    y = nn.LayerNorm(_EPSILON, dtype=self.dtype, name="norm1")(x)
    y = nn.MultiHeadDotProductAttention(
      self.num_heads,
      kernel_init=_KERNEL_INIT,
      dtype=self.dtype,
      force_fp32_for_softmax=True,
      name="attention",
    )(y)
    x = x + drop(y)
    y = nn.LayerNorm(_EPSILON, dtype=self.dtype, name="norm2")(x)
    y = drop(ACTIVATIONS["gelu"](dense(self.mlp_width, "mlp1")(y)))
    return x + drop(dense(x.shape[-1], "mlp2")(y))


class ViT(nn.Module):
  """A pre-norm vision transformer: patches, blocks, mean, norm, head.

  There is no class token: the tokens' mean is normalised (in this order) and
  goes to the head. The head's kernel starts at zero, so that an untrained
  model's logits are `head_bias` for every image.

  Attributes:
    num_classes: number of logits.
    patch_size: side of a patch, in pixels; it divides the image's sides.
    width: size of a token.
    depth: number of blocks.
    num_heads: number of attention heads; it divides `width`.
    mlp_ratio: size of a block's hidden layer over `width`.
    dropout: rate after the embedding and inside each block.
    head_bias: initial value of the logits' bias.
    remat: whether the backward pass computes each block's activations again,
      instead of keeping them: less memory for a third more work.
    dtype: type of the computation; parameters and logits are float32.

  References:
    Dosovitskiy et al., *An Image is Worth 16x16 Words*, 2021; mean pooling in
    place of the class token as in Beyer et al., *Better plain ViT baselines
    for ImageNet-1k*, 2022.
  """

  num_classes: int
  patch_size: int = 16
  width: int = 384
  depth: int = 12
  num_heads: int = 6
  mlp_ratio: int = 4
  dropout: float = 0.0
  head_bias: float = 0.0
  remat: bool = False
  dtype: DTypeLike = "float32"

  def __post_init__(self) -> None:
    check_classifier(self.num_classes, self.dropout, self.head_bias, self.dtype)
    for name in ("patch_size", "width", "depth", "num_heads", "mlp_ratio"):
      check_count(name, getattr(self, name))
    check_flag("remat", self.remat)
    if self.width % self.num_heads:
      raise ValueError(
        f"num_heads={self.num_heads} must divide width={self.width}"
      )
    super().__post_init__()

  @nn.compact
  def __call__(self, images: Images, *, train: bool = False) -> Logits:
    """Computes the logits; `train` turns on dropout (with key "dropout").

    Images must have the size that the model was initialised with, and patches
    that tile them; else a ValueError is raised.
    """
    x = PatchEmbedding(
      self.patch_size, self.width, dtype=self.dtype, name="embedding"
    )(images)
    x = nn.Dropout(self.dropout, deterministic=not train)(x)
    block = EncoderBlock
    if self.remat:
      block = nn.remat(EncoderBlock, static_argnums=(2,))  # train
    for i in range(self.depth):
      x = block(
        self.num_heads,
        self.mlp_ratio * self.width,
        dropout=self.dropout,
        dtype=self.dtype,
        name=f"block{i}",
      )(x, train)
    x = jnp.mean(x, axis=1)
    x = nn.LayerNorm(_EPSILON, dtype=self.dtype, name="norm")(x)
    return Head(
      self.num_classes,
      bias=self.head_bias,
      kernel_init=nn.initializers.zeros,
      dtype=self.dtype,
      name="head",
    )(x)


def resize_positions(
  pos_embed: Float[NDArray, "1 tokens features"],
  grid: Grid,
  old_grid: Grid | None = None,
) -> Float[NDArray, "1 new_tokens features"]:
  """Interpolates position embeddings to another grid of patches.

  Bicubic and antialiased, each feature by itself; what keeps its grid comes
  back as it is.

  Args:
    pos_embed: one embedding per patch, row by row, without a class token.
    grid: rows and columns of patches wanted.
    old_grid: rows and columns of patches that `pos_embed` is for; None for a
      square.

  Returns:
    One embedding per patch of the new grid.

  Raises:
    ValueError: the number of embeddings is not that of the old grid.

  Example:
    >>> import numpy as np
    >>> resize_positions(np.ones((1, 49, 384), np.float32), (12, 12)).shape
    (1, 144, 384)
  """
  _, tokens, features = pos_embed.shape
  if old_grid is None:
    side = math.isqrt(tokens)
    old_grid = (side, side)
  if math.prod(old_grid) != tokens:
    raise ValueError(
      f"pos_embed has {tokens} positions, which old_grid={old_grid} does not; "
      "pass its rows and columns, and leave out a class token's position."
    )
  if grid == old_grid:
    return pos_embed
  images = pos_embed.reshape(1, *old_grid, features)
  images = jax.image.resize(
    images, (1, *grid, features), method="cubic", antialias=True
  )
  return images.reshape(1, math.prod(grid), features)
