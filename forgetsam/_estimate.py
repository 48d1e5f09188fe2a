"""A stochastic estimate and its standard error."""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from forgetsam._typing import NDArray


class Estimate(NamedTuple):
  """A number and its standard error (an array each, in a batch of networks).

  Attributes:
    value: the estimate.
    standard_error: one standard deviation of its sampling error; each estimator
      says what it takes as sampled. Nan for a single sample.
  """

  value: Array
  standard_error: NDArray


def estimate_mean(
  samples: Float[Array, "n ..."], weights: Float[Array, " n"] | None = None
) -> Estimate:
  r"""The mean of independent samples and its standard error.

  .. math:: \bar x = \frac{\sum_i c_i x_i}{\sum_i c_i}, \qquad
     \mathrm{se}^2 = \frac{n}{n - 1}
       \frac{\sum_i c_i^2 (x_i - \bar x)^2}{(\sum_i c_i)^2}
  """
  n = len(samples)
  if weights is None:
    mean = jnp.mean(samples, axis=0)
  else:
    mean = jnp.sum(weights * samples) / jnp.sum(weights)
  if n == 1:
    # No result of JAX's, where JAX_DEBUG_NANS would stop at it.
    return Estimate(mean, np.full(mean.shape, np.nan, mean.dtype))
  if weights is None:
    return Estimate(mean, jnp.std(samples, axis=0, ddof=1) / math.sqrt(n))
  squares = jnp.sum((weights * (samples - mean)) ** 2)
  return Estimate(mean, jnp.sqrt(n / (n - 1) * squares) / jnp.sum(weights))
