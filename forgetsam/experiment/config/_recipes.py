"""Configurations of one's own: every key at its default, and variants."""

from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import config_dict

from forgetsam.experiment.config._json import config_from_dict
from forgetsam.experiment.config._keys import KEYS

_SAM = {"perturbation.name": "sam"}
_ASAM = {"perturbation.name": "asam"}
_GSAM = {"perturbation.name": "sam", "combine.name": "surrogate_gap"}
_OBF = {"ascent.name": "output_bias_forgetting"}

VARIANTS: Mapping[str, Mapping[str, Any]] = {
  "plain": {},
  "sam": _SAM,
  "obf": _SAM | _OBF,
  "random": {"perturbation.name": "random"},
  "asam": _ASAM,
  "asam_obf": _ASAM | _OBF,
  "gsam": _GSAM,
  "gsam_obf": _GSAM | _OBF | {"combine.normalized": True},
}


class UnknownVariantError(ValueError):
  """A variant that a configuration does not have; `variants` has those."""

  def __init__(self, variant: str, variants: Iterable[str]) -> None:
    self.variants = tuple(variants)
    super().__init__(
      f"variant {variant!r} is unknown; allowed: {', '.join(self.variants)}"
    )


def base_config() -> config_dict.ConfigDict:
  """Every configuration key at its default.

  Optional keys are typed placeholders (None until set), so that each can be
  overridden on the command line.

  Returns:
    A configuration of its own at every call.

  Example:
    >>> config = base_config()
    >>> config.model.hidden = (256, 256)
    >>> apply_variant(config, "obf").ascent.name
    'output_bias_forgetting'
  """
  return config_from_dict({key: row.default for key, row in KEYS.items()})


def apply_variant(
  config: config_dict.ConfigDict,
  variant: str,
  variants: Mapping[str, Mapping[str, Any]] = VARIANTS,
) -> config_dict.ConfigDict:
  """Sets a variant's keys in place.

  Args:
    config: the configuration that the variants share.
    variant: a name in `variants`; what follows the colon of --config.
    variants: keys with dots between levels, and their values, by name.

  Returns:
    `config`.

  Raises:
    UnknownVariantError: `variants` has no such name.
  """
  if variant not in variants:
    raise UnknownVariantError(variant, variants)
  config.update_from_flattened_dict(dict(variants[variant]))
  return config
