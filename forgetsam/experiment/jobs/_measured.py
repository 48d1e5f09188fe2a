"""What the measuring jobs share: which networks to measure."""

from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from ml_collections import config_dict

from forgetsam import data
from forgetsam.experiment.build import build_model, build_sources
from forgetsam.experiment.config import (
  ConfigError,
  check_config,
  config_to_dict,
  refusal,
)
from forgetsam.experiment.run._checkpoint import Checkpoints
from forgetsam.experiment.run._run_files import (
  CHECKPOINTS,
  load_config,
  refuse_other_config,
)


class Checkpoint(NamedTuple):
  """A network to measure."""

  name: str
  step: int
  params: Any
  model_state: Any


class Measured(NamedTuple):
  """A run to measure.

  Attributes:
    model: its model.
    sources: the splits of its data.
    checkpoints: the chosen ones, in the order of their steps.
  """

  model: nn.Module
  sources: data.Sources
  checkpoints: list[Checkpoint]


def open_run(
  config: config_dict.ConfigDict, workdir: Path, which: str
) -> Measured:
  """Opens a run's model, data and checkpoints.

  Args:
    config: the run's configuration.
    workdir: the run's folder.
    which: "last", "best" (by validation; the last where there is none) or
      "all" that are kept.

  Raises:
    ConfigError: the configuration is not the run's, or nothing is saved yet.
    CheckpointError: the checkpoints are damaged.
  """
  check_config(config, jax.local_device_count())
  old = config_to_dict(load_config(workdir))
  refuse_other_config(workdir, old, config_to_dict(config))
  if not (workdir / CHECKPOINTS).is_dir():
    raise ConfigError(
      refusal(
        "--workdir", str(workdir), "the folder of a run that has a checkpoint"
      )
    )
  sources = build_sources(config)
  model = build_model(config, sources.num_classes, sources.image_shape)
  with Checkpoints(workdir / CHECKPOINTS, read_only=True) as checkpoints:
    last = checkpoints.steps()[::-1]
    wanted = {
      "last": [("last", last)],
      "best": [("best", checkpoints.best_steps() or last)],
      "all": [(f"step_{step}", [step]) for step in checkpoints.steps()],
    }[which]
    found = [(name, checkpoints.variables(steps)) for name, steps in wanted]
  return Measured(
    model,
    sources,
    [Checkpoint(name, v.step, v.params, v.model_state) for name, v in found],
  )
