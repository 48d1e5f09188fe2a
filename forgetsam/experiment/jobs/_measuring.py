"""Shared by the jobs that measure a run's networks: they open it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from ml_collections import config_dict

from forgetsam import data
from forgetsam.experiment.build import (
  build_model,
  build_sources,
  input_spec,
)
from forgetsam.experiment.config import check_config
from forgetsam.experiment.run import (
  CHECKPOINTS,
  Checkpoints,
  Clock,
  DataRecord,
  Variables,
  as_begun,
  check_saved,
  log_stage,
)


class Measured(NamedTuple):
  """A run to measure, with the chosen checkpoints by their names."""

  model: nn.Module
  sources: data.Sources
  checkpoints: dict[str, Variables]


def open_run(
  config: config_dict.ConfigDict,
  workdir: Path,
  which: str,
  clock: Clock,
  change: Callable[
    [config_dict.ConfigDict], config_dict.ConfigDict
  ] = lambda c: c,
) -> Measured:
  """Opens a run's "last" or "best" checkpoint, or "all" in order of steps.

  Without validation the last checkpoint counts as the best. `change` is made to
  the configuration that the data are opened with, once it is the run's.
  """
  check_config(config, jax.local_device_count(), trains=False)
  config = as_begun(workdir, config)
  check_saved(workdir, config)
  record = DataRecord(workdir)
  pinned = record.pinned(config)
  log_stage(f"opening the data set {pinned.data.name}", clock.session())
  sources = build_sources(change(pinned))
  record.check(config.data.name, sources.identity)
  model = build_model(config, sources.num_classes, input_spec(sources))
  log_stage(f"reading the checkpoints in {workdir}", clock.session())
  with Checkpoints(workdir / CHECKPOINTS, read_only=True) as checkpoints:
    last = checkpoints.steps()[::-1]
    wanted = {
      "last": [("last", last)],
      "best": [("best", checkpoints.best_steps() or last)],
      "all": [(f"step_{step}", [step]) for step in checkpoints.steps()],
    }[which]
    found = {name: checkpoints.variables(steps) for name, steps in wanted}
  return Measured(model, sources, found)


def flatten(values: Any, prefix: str = "") -> dict[str, float | int | None]:
  """Flattens nested results: "last/trace", "last/trace/standard_error", ...

  A NamedTuple's `value` has the key itself. What is not finite is None, since
  JSON does not know it.
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
