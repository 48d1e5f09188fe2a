"""Loads what a run trained, for notebooks."""

from pathlib import Path
from typing import Any

import flax.linen as nn
from ml_collections import config_dict

from forgetsam.experiment.build import build_model
from forgetsam.experiment.run._checkpoint import Checkpoints
from forgetsam.experiment.run._run_files import CHECKPOINTS, load_config


def load_run(
  workdir: str | Path, checkpoint: str = "best"
) -> tuple[nn.Module, dict[str, Any], config_dict.ConfigDict]:
  """Loads the model that a run trained; needs no data.

  Args:
    workdir: the run's folder.
    checkpoint: "best" by validation accuracy (the last one where the run has no
      validation split), or "last".

  Returns:
    The model, its variables and the run's configuration:
    `model.apply(variables, images, train=False)` gives the logits.

  Raises:
    ValueError: the folder holds no run or no checkpoint that is whole, or
      `checkpoint` is neither "best" nor "last".
  """
  if checkpoint not in ("best", "last"):
    raise ValueError(f"checkpoint={checkpoint!r} must be 'best' or 'last'")
  workdir = Path(workdir).expanduser()
  config = load_config(workdir)
  if not (workdir / CHECKPOINTS).is_dir():
    raise ValueError(f"workdir={workdir} has no checkpoint yet")
  with Checkpoints(workdir / CHECKPOINTS, read_only=True) as checkpoints:
    steps = checkpoints.steps()[::-1]
    if checkpoint == "best":
      steps = checkpoints.best_steps() or steps
    found = checkpoints.variables(steps)
  model = build_model(config, found.record["num_classes"])
  return model, {"params": found.params, **found.model_state}, config
