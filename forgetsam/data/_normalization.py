"""From bytes to the numbers that a model reads."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

PerChannel = float | Sequence[float]


def channel_statistics(
  mean: PerChannel, std: PerChannel, channels: int
) -> tuple[Float32[np.ndarray, " m"], Float32[np.ndarray, " s"]]:
  """Mean and standard deviation as one number per channel, or for all.

  Raises:
    ValueError: for another number of values, or a deviation not above zero.
  """
  arrays = []
  for name, value in (("mean", mean), ("std", std)):
    array = np.atleast_1d(np.asarray(value, np.float32))
    if array.ndim > 1 or len(array) not in (1, channels):
      raise ValueError(
        f"{name}={value} must be one number, or one for each of the"
        f" {channels} channels"
      )
    if not np.all(np.isfinite(array)):
      raise ValueError(f"{name}={value} must be finite")
    arrays.append(array)
  if np.any(arrays[1] <= 0):
    raise ValueError(f"std={std} must be positive")
  return arrays[0], arrays[1]
