"""The metrics of a run's best and last checkpoint."""

from pathlib import Path
from typing import Any

import jax
from ml_collections import config_dict

from forgetsam.builders import build_experiment
from forgetsam.checkpoint import Checkpoints
from forgetsam.config import ConfigError, check_config, config_to_dict
from forgetsam.jobs._evaluate_split import evaluate_split
from forgetsam.jobs._run_files import (
  CHECKPOINTS,
  EVALUATION,
  load_config,
  refuse_other_config,
  write_json,
)


def evaluate_run(
  config: config_dict.ConfigDict, workdir: Path
) -> dict[str, Any]:
  """Evaluates checkpoints on the validation and the test split.

  Args:
    config: the run's configuration.
    workdir: the run's folder.

  Returns:
    The content of `evaluation.json`: "last/step", "last/test/accuracy", ...,
    and the same under "best/" where there is a validation split.

  Raises:
    ConfigError: the configuration is not the run's, or nothing is saved yet.
    CheckpointError: the checkpoints are damaged.
  """
  check_config(config, jax.local_device_count())
  old = config_to_dict(load_config(workdir))
  refuse_other_config(workdir, old, config_to_dict(config))
  if not (workdir / CHECKPOINTS).is_dir():
    raise ConfigError(
      f"--workdir={workdir} is refused: it has no checkpoint yet\n"
      "  allowed: the folder of a run that has saved one"
    )
  experiment = build_experiment(config)
  results: dict[str, Any] = {}
  with Checkpoints(workdir / CHECKPOINTS, read_only=True) as checkpoints:
    wanted = {
      "last": checkpoints.steps()[::-1],
      "best": checkpoints.best_steps(),
    }
    for name, steps in wanted.items():
      if steps or name == "last":
        variables = checkpoints.variables(steps)
        results[f"{name}/step"] = variables.step
        for split in ("validation", "test"):
          if getattr(experiment.images, split) is not None:
            result = evaluate_split(experiment, variables, split)
            results |= {f"{name}/{split}/{k}": v for k, v in result.items()}
  write_json(workdir / EVALUATION, results)
  for key, value in results.items():
    text = str(value) if isinstance(value, int) else f"{value:.4f}"
    print(f"  {key:<32}{text}")
  print(f"  {'files':<32}{workdir / EVALUATION}")
  return results
