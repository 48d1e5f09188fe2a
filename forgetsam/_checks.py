"""Validation of arguments that are plain Python values."""

import math
from typing import Any

import jax
import numpy as np


def is_number(value: Any) -> bool:
  """Whether a value is a Python or NumPy number, known before tracing."""
  number = isinstance(value, (int, float, np.number))
  return number and not isinstance(value, bool)


def check_number(
  name: str,
  value: Any,
  *,
  low: float = -math.inf,
  high: float = math.inf,
  exclude_high: bool = False,
  kind: str = "a number",
) -> None:
  """Raises a `ValueError` where a number is out of range or not finite.

  Of arrays, which may be traced or vmapped over, the shape alone is checked.
  """
  if isinstance(value, (jax.Array, np.ndarray)):
    check_scalar(name, value)
    return
  if not is_number(value):
    raise ValueError(f"{name}={value!r} must be {kind}")
  too_high = value >= high if exclude_high else value > high
  if not math.isfinite(value) or value < low or too_high:
    allowed = _range(low, high, exclude_high)
    raise ValueError(f"{name}={value} must be {allowed}")


def check_scalar(name: str, value: Any) -> None:
  """Raises a `ValueError` where an array has axes: it would broadcast."""
  if np.ndim(value) > 0:
    raise ValueError(
      f"{name} has the shape {np.shape(value)}, and must be one number: take "
      "optax.partition for a number of each group, jax.vmap for several runs"
    )


def check_rho(name: str, value: Any) -> None:
  """Raises a `ValueError` where a radius is no number >= 0 and no schedule."""
  kind = "a number or a schedule of the update count"
  if not callable(value):
    check_number(name, value, low=0, kind=kind)


def check_transform(name: str, value: Any, such_as: str) -> None:
  """Raises a `ValueError` for what is no optax transform, as yet uncalled."""
  if not (hasattr(value, "init") and hasattr(value, "update")):
    raise ValueError(
      f"{name}={value!r} must be an optax transform, such as {such_as}"
    )


def check_count(
  name: str, value: Any, otherwise: str = "", *, at_least: int = 1
) -> None:
  """Raises a `ValueError` where a value is no integer of at least so much."""
  if not _is_integer(value) or value < at_least:
    raise ValueError(
      f"{name}={value!r} must be an integer of at least {at_least}{otherwise}"
    )


def check_seed(name: str, value: Any) -> None:
  """Raises a `ValueError` where a seed has no JAX key of its own.

  JAX keeps 32 bits of a seed, so that 7 and 2**32 + 7 would share a key. Of
  JAX's arrays, which may be traced, the dtype alone is checked.
  """
  seeds = value if isinstance(value, jax.Array) else np.asarray(value)
  right = bool(np.issubdtype(seeds.dtype, np.integer))
  if right and isinstance(seeds, np.ndarray):
    right = bool(np.all((seeds >= 0) & (seeds < 2**32)))
  if not right:
    raise ValueError(
      f"{name}={value!r} must be an integer, at least 0 and below 2**32: JAX "
      "folds others onto those"
    )


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
  """Raises a `ValueError` that lists what is allowed."""
  if value not in allowed:
    choices = ", ".join(repr(choice) for choice in allowed)
    raise ValueError(f"{name}={value!r} must be one of {choices}")


def check_params(name: str, params: Any, extra: str = "") -> None:
  """Raises a `ValueError` that says how to pass params to `update`."""
  if params is None:
    raise ValueError(
      f"{name} needs params: call update(gradients, state, params{extra})"
    )


def check_real(what: str, params: Any) -> None:
  """Raises a `ValueError` that names a complex array of params."""
  for path, x in jax.tree_util.tree_leaves_with_path(params):
    if np.iscomplexobj(x):
      raise ValueError(
        f"params{jax.tree_util.keystr(path)} is {x.dtype}: {what} is of real "
        "arrays; give the model's real and imaginary parts as two"
      )


def _is_integer(value: Any) -> bool:
  return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _range(low: float, high: float, exclude_high: bool) -> str:
  if math.isinf(low) and math.isinf(high):
    return "finite"
  if math.isinf(high):
    return f"finite and at least {low:g}"
  return f"in [{low:g}, {high:g}{')' if exclude_high else ']'}"
