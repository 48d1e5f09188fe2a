"""The layer from features to logits, which every model ends with."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from forgetsam.models._typing import Logits


class Head(nn.Module):
  """A dense layer whose logits are float32, whatever it computes in.

  Attributes:
    num_classes: number of logits.
    bias: initial value of the bias. With a sigmoid per class, a negative one
      starts the probabilities near the classes' frequencies: about -log K.
    kernel_init: initialiser of the kernel.
    dtype: type of the computation.
  """

  num_classes: int
  bias: float = 0.0
  kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
  dtype: DTypeLike = "float32"

  @nn.compact
  def __call__(self, features: Float[Array, "batch features"]) -> Logits:
    """Computes the logits of a batch of features."""
    logits = nn.Dense(
      self.num_classes,
      kernel_init=self.kernel_init,
      bias_init=nn.initializers.constant(self.bias),
      dtype=self.dtype,
      name="dense",
    )(features)
    # Not lowered to float32 where the computation is in float64.
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
