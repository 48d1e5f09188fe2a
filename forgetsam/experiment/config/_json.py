"""Configurations as flat mappings, as JSON, and as a hash."""

import functools
import hashlib
import json
import operator
from collections.abc import Mapping
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import config_dict

from forgetsam.experiment.config._keys import KEYS
from forgetsam.experiment.config._options import with_groups

# No run was ever without; a `config.json` that lacks them is damaged.
_ALWAYS_THERE = ("data.name", "model.name")


def leaves(config: config_dict.ConfigDict) -> dict[str, Any]:
  """The configuration's values by full key, without the leading `config.`."""
  return dict(flatten_dict(config.to_dict(), sep="."))


def config_to_dict(config: config_dict.ConfigDict) -> dict[str, Any]:
  """The configuration as plain, JSON-like nested dictionaries."""
  return dict(json.loads(config.to_json()))


def config_from_dict(values: Mapping[str, Any]) -> config_dict.ConfigDict:
  """The configuration that `config_to_dict` took apart.

  JSON has neither tuples nor types for what is none: tuples come back from
  lists, and keys that are none become typed placeholders again.
  """
  flat = flatten_dict(dict(values), sep=".")
  restored = {key: _restored(key, value) for key, value in flat.items()}
  return with_groups(config_dict.ConfigDict(unflatten_dict(restored, sep=".")))


def with_absent(
  values: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Completes the configuration of a run that is older than some keys.

  Args:
    values: the content of its `config.json`.

  Returns:
    The values with what runs did before each missing key, and these alone, by
    full key.
  """
  flat = flatten_dict(dict(values), sep=".")
  absent = {
    key: _as_json(row.unsaid)
    for key, row in KEYS.items()
    if key not in flat and key not in _ALWAYS_THERE
  }
  return dict(unflatten_dict(flat | absent, sep=".")), absent


def _as_json(value: Any) -> Any:
  return list(value) if isinstance(value, tuple) else value


def _restored(key: str, value: Any) -> Any:
  if value is None and key in KEYS:
    return config_dict.placeholder(KEYS[key].rule.kind)
  return _as_tuple(value)


def _as_tuple(value: Any) -> Any:
  return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def typed_config(config: config_dict.ConfigDict) -> config_dict.ConfigDict:
  """The configuration as overrides need it, also of a frozen or JSON-made one.

  Lists become tuples, and what is none a placeholder of the key's type.
  """
  values = leaves(config)
  frozen = isinstance(config, config_dict.FrozenConfigDict)
  if frozen or any(isinstance(value, list) for value in values.values()):
    return config_from_dict(config.to_dict())
  for key, value in values.items():
    *parents, name = key.split(".")
    holder = functools.reduce(operator.getitem, parents, config)
    if holder.get_type(name) is type(None):
      holder[name] = _restored(key, value)
  return with_groups(config)


def _binding(values: Mapping[str, Any]) -> dict[str, Any]:
  """Keys that decide a run's result; those that change nothing are left out."""
  flat = flatten_dict(dict(values), sep=".")
  return {
    key: value
    for key, value in flat.items()
    if key not in KEYS
    or (KEYS[key].binding and value != _as_json(KEYS[key].absent))
  }


def differing_keys(
  old: Mapping[str, Any], new: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
  """Keys that decide a run's result and differ: `{key: (old, new)}`.

  Keys that `old` lacks have what runs did before these keys were added.
  """
  old = with_absent(old)[0]
  before, after = _binding(old), _binding(new)
  olds, news = (flatten_dict(dict(values), sep=".") for values in (old, new))
  return {
    key: (olds.get(key), news.get(key))
    for key in sorted(before | after)
    if before.get(key) != after.get(key)
  }


def config_hash(values: Mapping[str, Any]) -> str:
  """Sixteen hexadecimal digits that name what decides a run's result."""
  text = json.dumps(_binding(values), sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]
