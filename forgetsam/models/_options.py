"""Checks of models' options, and what their names stand for."""

import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

Activation = Callable[[jax.Array], jax.Array]

ACTIVATIONS: Mapping[str, Activation] = MappingProxyType(
  {
    # The exact GELU: Flax's default is the tanh approximation.
    "gelu": functools.partial(nn.gelu, approximate=False),
    "relu": nn.relu,
    "tanh": nn.tanh,
  }
)


def check_positive(**options: int) -> None:
  """Raises a ValueError that names the first option that is not in 1, 2, ..."""
  for name, value in options.items():
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
      raise ValueError(f"{name}={value!r} must be a positive integer.")


def check_widths(name: str, widths: object) -> None:
  """Raises a ValueError unless `widths` is a sequence of positive integers."""
  if isinstance(widths, str) or not isinstance(widths, Sequence):
    raise ValueError(
      f"{name}={widths!r} must be a tuple of positive integers, one a layer."
    )
  for i, width in enumerate(widths):
    check_positive(**{f"{name}[{i}]": width})


def check_rate(**options: float) -> None:
  """Raises a ValueError that names the first option outside [0, 1)."""
  for name, value in options.items():
    if isinstance(value, bool) or not isinstance(value, int | float):
      raise ValueError(f"{name}={value!r} must be a number in [0, 1).")
    if not 0.0 <= value < 1.0:
      raise ValueError(f"{name}={value!r} must lie in [0, 1).")


def check_activation(name: str) -> None:
  """Raises a ValueError that lists the activations if `name` is not one."""
  if name not in ACTIVATIONS:
    raise ValueError(
      f"activation={name!r} is unknown; choose one of {sorted(ACTIVATIONS)}."
    )


def check_dtype(dtype: DTypeLike) -> None:
  """Raises a ValueError unless `dtype` is, or names, a floating-point type."""
  try:
    known = jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
  except TypeError:
    known = False
  if not known:
    raise ValueError(
      f"dtype={dtype!r} must be a floating-point type, such as 'float32' or "
      "'bfloat16'."
    )
