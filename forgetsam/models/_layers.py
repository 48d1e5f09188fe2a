"""Layers that several models share: batch normalisation, and the head."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from forgetsam._arrays import at_least_float32
from forgetsam._typing import NDArray

Images = Float[NDArray, "batch height width channels"]
Logits = Float[Array, "batch classes"]


class BatchNorm(nn.Module):
  r"""Batch normalisation whose running variance is unbiased, as in PyTorch.

  Over the n values that a channel has in the batch (examples times pixels),

  .. math::
    y = \mathrm{scale} \, (x - \bar x) / \sqrt{s^2 + \epsilon}
      + \mathrm{bias}, \qquad s^2 = \tfrac1n \textstyle\sum (x - \bar x)^2,

  .. math::
    \mathrm{mean} \leftarrow \beta \, \mathrm{mean} + (1 - \beta) \, \bar x,
    \qquad
    \mathrm{var} \leftarrow \beta \, \mathrm{var}
      + (1 - \beta) \tfrac{n}{n - 1} s^2.

  `flax.linen.BatchNorm` keeps the biased variance instead: with micro-batches
  of a few examples and small feature maps, evaluation would differ visibly.
  Statistics are taken in float32 at least, whatever `dtype` is, in two passes,
  because E[x^2] - E[x]^2 cancels where the mean is large.

  Attributes:
    momentum: the share beta of the old running statistics that is kept, which
      is one minus PyTorch's `momentum`.
    epsilon: added to the variance.
    dtype: type of the output.
    scale_init: initialiser of the scale.
  """

  momentum: float = 0.9
  epsilon: float = 1e-5
  dtype: DTypeLike = "float32"
  scale_init: nn.initializers.Initializer = nn.initializers.ones

  @nn.compact
  def __call__(
    self, x: Float[NDArray, "*batch channels"], *, use_running_average: bool
  ) -> Float[Array, "*batch channels"]:
    """Normalises `x` over all its axes but the last.

    Args:
      x: activations, channels last.
      use_running_average: normalise with the running statistics and leave them
        alone (evaluation), instead of taking and recording the batch's.

    Returns:
      The normalised activations.

    Raises:
      ValueError: the batch's statistics are asked for, and a channel has only
        one value.
    """
    channels = x.shape[-1]
    scale = self.param("scale", self.scale_init, (channels,), jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
    mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
    var = self.variable("batch_stats", "var", jnp.ones, (channels,))
    x = at_least_float32(x)
    if use_running_average:
      x_mean, x_var = mean.value, var.value
    else:
      x_mean, x_var = _moments(x)
      if not self.is_initializing():
        n = x.size // channels
        mean.value = self._running(mean.value, x_mean)
        var.value = self._running(var.value, x_var * (n / (n - 1)))
    factor = jax.lax.rsqrt(x_var + self.epsilon) * scale
    # An axis for each of x's: JAX_NUMPY_RANK_PROMOTION may forbid fewer.
    x_mean, factor, bias = (
      jnp.expand_dims(v, range(x.ndim - 1)) for v in (x_mean, factor, bias)
    )
    y = (x - x_mean) * factor + bias
    return y.astype(self.dtype)

  def _running(
    self, old: Float[NDArray, " channels"], new: Float[Array, " channels"]
  ) -> Float[Array, " channels"]:
    mixed = self.momentum * old + (1.0 - self.momentum) * new
    return jnp.asarray(mixed, old.dtype)


def _moments(
  x: Float[Array, "*batch channels"],
) -> tuple[Float[Array, " channels"], Float[Array, " channels"]]:
  """A channel's mean and its biased variance."""
  if x.size == x.shape[-1]:
    raise ValueError(
      f"BatchNorm got activations of shape {x.shape}: a channel's variance "
      "needs more than one value. Use a larger micro_batch_size, a larger "
      "image or fewer strided layers."
    )
  axes = tuple(range(x.ndim - 1))
  mean = jnp.mean(x, axes, keepdims=True)
  return mean.reshape(-1), jnp.mean(jnp.square(x - mean), axes)


class Head(nn.Module):
  """A dense layer whose logits are float32, whatever it computes in.

  With a sigmoid per class, a negative initial `bias` starts the probabilities
  near the classes' frequencies: about -log K. None draws it uniformly within
  1 / sqrt(features), as PyTorch's linear layers do.
  """

  num_classes: int
  bias: float | None = 0.0
  kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
  dtype: DTypeLike = "float32"

  @nn.compact
  def __call__(self, features: Float[Array, "batch features"]) -> Logits:
    """Computes the logits of a batch of features."""
    if self.bias is None:
      bias_init = _uniform(features.shape[-1] ** -0.5)
    else:
      bias_init = nn.initializers.constant(self.bias)
    logits = nn.Dense(
      self.num_classes,
      kernel_init=self.kernel_init,
      bias_init=bias_init,
      dtype=self.dtype,
      name="dense",
    )(features)
    # Not lowered to float32 where the computation is in float64.
    return at_least_float32(logits)


def _uniform(bound: float) -> nn.initializers.Initializer:
  def init(
    key: Key[Array, ""],
    shape: Sequence[int],
    dtype: DTypeLike = "float32",
    out_sharding: Any = None,
  ) -> Array:
    return jax.random.uniform(
      key, shape, dtype, -bound, bound, out_sharding=out_sharding
    )

  return init
