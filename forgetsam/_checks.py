"""Validation of hyper-parameters that are plain Python numbers."""

import math
from typing import Any

import numpy as np


def check_number(
  name: str,
  value: Any,
  *,
  low: float = -math.inf,
  high: float = math.inf,
  exclude_high: bool = False,
) -> None:
  """Raises a `ValueError` where a Python or NumPy number is out of range.

  Schedules and JAX arrays pass unchecked: factories are traced and vmapped
  over their hyper-parameters.
  """
  if not isinstance(value, (int, float, np.number)):
    return
  too_high = value >= high if exclude_high else value > high
  if math.isnan(value) or value < low or too_high:
    upper = f"{high:g})" if exclude_high else f"{high:g}]"
    raise ValueError(f"{name}={value} must be in [{low:g}, {upper}")


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
  """Raises a `ValueError` that lists what is allowed."""
  if value not in allowed:
    choices = ", ".join(repr(choice) for choice in allowed)
    raise ValueError(f"{name}={value!r} must be one of {choices}")
