"""Nested measures as flat JSON, and as lines on the terminal."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def flatten(values: Any, prefix: str = "") -> dict[str, float | int | None]:
  """Flat keys, such as "last/trace" and "last/trace/standard_error".

  Args:
    values: nested dictionaries and NamedTuples of numbers. A NamedTuple with
      `value` and `standard_error` gives the key itself and one for its error.
    prefix: what the keys begin with.

  Returns:
    Numbers; None for what is not finite, which JSON does not know.
  """
  if hasattr(values, "_asdict"):
    values = dict(values._asdict())
    if "value" in values:
      values[""] = values.pop("value")
  if not isinstance(values, Mapping):
    return {prefix: _number(values)}
  flat: dict[str, float | int | None] = {}
  for name, value in values.items():
    flat |= flatten(value, "/".join(filter(None, [prefix, name])))
  return flat


def _number(value: Any) -> float | int | None:
  if isinstance(value, int):
    return value
  number = float(np.asarray(value))
  return number if np.isfinite(number) else None


def print_measures(
  results: Mapping[str, Any], shown: Callable[[str], bool] = lambda key: True
) -> None:
  """One line per measure that is to be shown, its error beside it."""
  errors = ("standard_error", "error")
  chosen = {
    key: value
    for key, value in results.items()
    if shown(key) and key.rsplit("/", 1)[-1] not in errors
  }
  width = max(map(len, chosen))
  for key, value in chosen.items():
    text = _shown(value)
    for error in errors:
      if f"{key}/{error}" in results:
        text += f" ± {_shown(results[f'{key}/{error}'])}"
    print(f"  {key:<{width}}  {text}")


def _shown(value: float | int | None) -> str:
  if value is None:
    return "not finite"
  return str(value) if isinstance(value, int) else f"{value:.4g}"
