"""Checks of models' options, and the activations by name."""

import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from forgetsam._checks import check_count, check_number

Activation = Callable[[jax.Array], jax.Array]

ACTIVATIONS: Mapping[str, Activation] = MappingProxyType(
  {
    # The exact GELU: Flax's default is the tanh approximation.
    "gelu": functools.partial(nn.gelu, approximate=False),
    "relu": nn.relu,
    "tanh": nn.tanh,
  }
)


def check_widths(name: str, value: object) -> None:
  """Raises a `ValueError` unless a value is a tuple of positive integers."""
  if isinstance(value, str) or not isinstance(value, Sequence):
    raise ValueError(
      f"{name}={value!r} must be a tuple of positive integers, one a layer"
    )
  for i, width in enumerate(value):
    check_count(f"{name}[{i}]", width)


def check_flag(name: str, value: object) -> None:
  """Raises a `ValueError` unless a value is a bool."""
  if not isinstance(value, bool):
    raise ValueError(f"{name}={value!r} must be True or False")


def check_classifier(
  num_classes: int, dropout: float, head_bias: float, dtype: DTypeLike
) -> None:
  """Checks the options that all models have."""
  check_count("num_classes", num_classes)
  check_number("dropout", dropout, low=0, high=1, exclude_high=True)
  check_number("head_bias", head_bias)
  try:
    known = jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
  except TypeError:
    known = False
  if not known:
    raise ValueError(
      f"dtype={dtype!r} must be a floating-point type, such as 'float32' or "
      "'bfloat16'"
    )
  if jnp.dtype(dtype).itemsize > 4 and not jax.config.read("jax_enable_x64"):
    raise ValueError(
      f"dtype={dtype!r} would become float32: JAX computes in 64 bits only "
      "where JAX_ENABLE_X64=1 is set"
    )
