"""The expected calibration error, as Guo et al. (2017, eq. 3) bin it."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# As many as in Guo et al.
NUM_BINS = 15


def confidence_bins(
  confidence: Float[Array, " n"], num_bins: int = NUM_BINS
) -> Bool[Array, "n bins"]:
  r"""Which of M equal bins each confidence falls into.

  Bin m of 1 to M holds :math:`(m - 1) / M < p \le m / M`, and the first also 0.

  Args:
    confidence: the predictions' largest probabilities `[n]`.
    num_bins: M.

  Returns:
    One True in each row; the first for nan, so that sums over the bin show it.

  Example:
    >>> confidence_bins(jnp.array([0.5, 0.51]), num_bins=2)
    Array([[ True, False],
           [False,  True]], dtype=bool)

  References:
    Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017, eq. (3).
  """
  p = confidence[:, None]
  bins = jnp.where(p > 0, jnp.ceil(p * num_bins) - 1, 0)
  return bins == jnp.arange(num_bins, dtype=bins.dtype)[None]


def calibration_error(bin_confidence: Any, bin_correct: Any, count: Any) -> Any:
  r"""The expected calibration error in [0, 1], from sums over bins.

  .. math:: \mathrm{ECE} = \sum_m \frac{n_m}{n}
     \lvert \mathrm{acc}_m - \mathrm{conf}_m \rvert

  Args:
    bin_confidence: the sum of the confidences in each bin.
    bin_correct: the number of correct predictions in each.
    count: n, over all bins.

  Example:
    >>> float(calibration_error(jnp.array([0.0, 1.5]), jnp.array([0, 1]), 2))
    0.25
  """
  return abs(bin_correct - bin_confidence).sum() / count
