"""Estimates as numbers with flat names, as records and tables hold them."""

from collections.abc import Mapping
from typing import Any

import jax

from forgetsam.forgetting import OutputInformation

Metrics = dict[str, float]


def informations(name: str, by_set: Mapping[str, OutputInformation]) -> Metrics:
  """The bias-corrected entropy forms, as `NAME_GIVEN_SET`."""
  metrics: Metrics = {}
  for examples, informations in by_set.items():
    for given, information in informations._asdict().items():
      key = f"{name}_{given}_{examples}"
      metrics |= with_errors({key: information.jackknife})
  return metrics


def with_errors(estimates: dict[str, Any]) -> Metrics:
  """Values, and the standard errors as `NAME_se`."""
  estimates = jax.device_get(estimates)
  return {name: float(e.value) for name, e in estimates.items()} | {
    f"{name}_se": float(e.standard_error) for name, e in estimates.items()
  }
