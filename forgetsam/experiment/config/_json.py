"""Configurations as JSON: what a run's folder keeps of them."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ml_collections import config_dict

from forgetsam.experiment.config._schema import SCHEMA

# A run may go on with other values of these: they move no weight, or only
# after the step at which the run would have stopped.
_FREE = (
  "on_nonfinite",
  *("log.", "checkpoint.", "data.dir", "data.threads"),
  *("evaluation.batch_size", "evaluation.watch_test"),
  *("evaluation.sets", "evaluation.job_"),
  *("sharpness.", "forgetting.", "probe."),
)


def config_to_dict(config: config_dict.ConfigDict) -> dict[str, Any]:
  """The configuration as plain, JSON-like nested dictionaries."""
  return dict(json.loads(config.to_json()))


def config_from_dict(values: Mapping[str, Any]) -> config_dict.ConfigDict:
  """The configuration that `config_to_dict` took apart.

  JSON has neither tuples nor types for what is none: tuples come back from
  lists, and keys that are none become typed placeholders again.
  """

  def restore(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
      if isinstance(value, Mapping):
        out[key] = restore(value, f"{prefix}{key}.")
      elif isinstance(value, list):
        out[key] = tuple(value)
      elif value is None and prefix + key in SCHEMA:
        out[key] = config_dict.placeholder(SCHEMA[prefix + key].kind)
      else:
        out[key] = value
    return out

  return config_dict.ConfigDict(restore(values, ""))


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  flat: dict[str, Any] = {}
  for key, value in values.items():
    if isinstance(value, Mapping):
      flat |= _flat(value, f"{prefix}{key}.")
    else:
      flat[prefix + key] = value
  return flat


def _binding(values: Mapping[str, Any]) -> dict[str, Any]:
  """The flat keys that decide a run's result."""
  flat = _flat(values)
  return {k: v for k, v in flat.items() if not k.startswith(_FREE)}


def differing_keys(
  old: Mapping[str, Any], new: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
  """Keys that decide a run's result and differ: `{key: (old, new)}`."""
  before, after = _binding(old), _binding(new)
  return {
    key: (before.get(key), after.get(key))
    for key in sorted(before | after)
    if before.get(key) != after.get(key)
  }


def config_hash(values: Mapping[str, Any]) -> str:
  """Sixteen hexadecimal digits that name what decides a run's result."""
  text = json.dumps(_binding(values), sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]
