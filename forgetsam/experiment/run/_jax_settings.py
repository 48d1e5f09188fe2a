"""JAX's settings: devices that are there, and numbers that stay the same."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from forgetsam.experiment.config import ConfigError, refusal

_SETTINGS = (
  "jax_default_prng_impl",
  "jax_threefry_partitionable",
  "jax_enable_x64",
)


def jax_settings() -> dict[str, Any]:
  """The settings by the names of their environment variables."""
  return {name.upper(): getattr(jax.config, name) for name in _SETTINGS}


def check_jax_settings(record: Mapping[str, Any], workdir: Path) -> None:
  """Refuses to resume a run under settings that would draw other numbers.

  Args:
    record: a checkpoint's; those of older versions have no settings.
    workdir: the run's folder.

  Raises:
    ConfigError: it names the settings that differ.
  """
  now = jax_settings()
  lines = [
    f"{name}={now[name]} is refused\n  allowed: {name}={before}, as the run in "
    f"--workdir={workdir} began; or another --workdir"
    for name, before in record.get("jax", {}).items()
    if now.get(name, before) != before
  ]
  if lines:
    raise ConfigError("\n".join(lines))


def check_devices() -> None:
  """Starts JAX's devices, which no other part of the program need explain.

  Raises:
    ConfigError: JAX finds none, as where `JAX_PLATFORMS` names others.
  """
  try:
    jax.local_devices()
  except (AssertionError, RuntimeError) as error:
    platforms = os.environ.get("JAX_PLATFORMS")
    allowed = (
      "platforms whose devices this machine has, such as cpu, or no"
      f" JAX_PLATFORMS at all; JAX cannot start: {error}"
    )
    raise ConfigError(refusal("JAX_PLATFORMS", platforms, allowed)) from error
