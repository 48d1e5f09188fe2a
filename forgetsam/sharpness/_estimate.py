"""A stochastic estimate and how far it may be off."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


class Estimate(NamedTuple):
  """A stochastic estimate.

  Attributes:
    value: the estimate.
    standard_error: the estimated standard deviation of `value` over random
      keys, or over draws of the data where the docstring says so; nan for a
      single sample.
  """

  value: Float[Array, ""]
  standard_error: Float[Array, ""]


def estimate_mean(
  samples: Float[Array, " n"], weights: Float[Array, " n"] | None = None
) -> Estimate:
  r"""The weighted mean of independent samples and its standard error.

  .. math:: \bar x = \frac{\sum_i c_i x_i}{\sum_i c_i}, \qquad
     \mathrm{se}^2 = \frac{n}{n - 1}
       \frac{\sum_i c_i^2 (x_i - \bar x)^2}{(\sum_i c_i)^2},

  with n the number of samples. Equal weights give the textbook's
  :math:`s / \sqrt n`.
  """
  n = len(samples)
  if weights is None:
    weights = jnp.ones_like(samples)
  mean = jnp.sum(weights * samples) / jnp.sum(weights)
  if n == 1:
    return Estimate(mean, jnp.full_like(mean, jnp.nan))
  squares = jnp.sum((weights * (samples - mean)) ** 2)
  error = jnp.sqrt(n / (n - 1) * squares) / jnp.sum(weights)
  return Estimate(mean, error)
