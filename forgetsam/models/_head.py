"""The layer from features to logits, which every model ends with."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from forgetsam.models._typing import Logits


class Head(nn.Module):
  """A dense layer whose logits are float32, whatever it computes in.

  Attributes:
    num_classes: number of logits.
    bias: initial value of the bias. With a sigmoid per class, a negative one
      starts the probabilities near the classes' frequencies: about -log K.
      None draws it uniformly within 1 / sqrt(features), as PyTorch's linear
      layers do.
    kernel_init: initialiser of the kernel.
    dtype: type of the computation.
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
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


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
