"""Checks of models' options, and the activations by name."""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeGuard

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


def check_positive(**options: object) -> None:
  """Raises a ValueError that names the first option that is not in 1, 2, ..."""
  for name, value in options.items():
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
      raise ValueError(f"{name}={value!r} must be a positive integer.")


def check_widths(**options: object) -> None:
  """Raises a ValueError unless the options are tuples of positive integers."""
  for name, value in options.items():
    if isinstance(value, str) or not isinstance(value, Sequence):
      raise ValueError(
        f"{name}={value!r} must be a tuple of positive integers, one a layer."
      )
    for i, width in enumerate(value):
      check_positive(**{f"{name}[{i}]": width})


def check_rate(**options: object) -> None:
  """Raises a ValueError that names the first option outside [0, 1)."""
  for name, value in options.items():
    if not _is_number(value) or not 0.0 <= value < 1.0:
      raise ValueError(f"{name}={value!r} must be a number in [0, 1).")


def check_finite(**options: object) -> None:
  """Raises a ValueError that names the first option that is not finite."""
  for name, value in options.items():
    if not _is_number(value) or not math.isfinite(value):
      raise ValueError(f"{name}={value!r} must be a finite number.")


def check_flag(**options: object) -> None:
  """Raises a ValueError that names the first option that is not a bool."""
  for name, value in options.items():
    if not isinstance(value, bool):
      raise ValueError(f"{name}={value!r} must be True or False.")


def check_choice(choices: Iterable[str], **options: object) -> None:
  """Raises a ValueError that lists the choices if an option is none of them."""
  choices = sorted(choices)
  for name, value in options.items():
    if value not in choices:
      raise ValueError(f"{name}={value!r} is unknown; choose one of {choices}.")


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
  if jnp.dtype(dtype).itemsize > 4 and not jax.config.read("jax_enable_x64"):
    raise ValueError(
      f"dtype={dtype!r} would become float32: JAX computes in 64 bits only "
      "where JAX_ENABLE_X64=1 is set."
    )


def check_classifier(
  *,
  num_classes: int,
  dropout: float,
  head_bias: float,
  dtype: DTypeLike,
) -> None:
  """Checks the options that all models have."""
  check_positive(num_classes=num_classes)
  check_rate(dropout=dropout)
  check_finite(head_bias=head_bias)
  check_dtype(dtype)


def _is_number(value: object) -> TypeGuard[float]:
  return isinstance(value, int | float) and not isinstance(value, bool)
