"""The record of each finished run on disk: what a sweep resumes from."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from absl import logging
from ml_collections import config_dict

from forgetsam.experiment.config import (
  ConfigError,
  config_hash,
  config_to_dict,
  differing_keys,
  refusal,
  with_absent,
)
from forgetsam.experiment.run import (
  DELTA_EXAMPLES,
  check_delta_examples,
  check_folder,
  delta_examples,
  read_json,
  write_json,
)
from forgetsam.experiment.sweep._plan import Trial
from forgetsam.experiment.sweep._runner import Outcome

MANIFEST = "sweep.json"


@dataclasses.dataclass(frozen=True)
class Record:
  """A finished run's results.

  Attributes:
    metrics: "validation/accuracy", "test/loss", ...; empty where it diverged.
    diverged_at: the step that was not finite, or None.
    seconds: wall seconds.
  """

  metrics: dict[str, float]
  diverged_at: int | None
  seconds: float

  def value(self, metric: str) -> float | None:
    """A metric, or None where the run diverged."""
    return None if self.diverged_at is not None else self.metrics[metric]


def scored_by(records: Iterable[Record]) -> str:
  """The metric that runs are compared by: accuracy, or else the loss."""
  names = {name.partition("/")[2] for r in records for name in r.metrics}
  return "loss" if names and "accuracy" not in names else "accuracy"


class Records:
  """The finished runs in a folder.

  Args:
    workdir: the sweep's folder.
    mode: "tune" or "report"; a folder holds one of them, so that no test
      result lies beside a choice.

  Raises:
    ConfigError: the folder cannot be used, or holds a sweep of the other kind.
  """

  def __init__(self, workdir: Path, mode: str):
    self._workdir = workdir
    check_folder(workdir)
    manifest = read_json(workdir / MANIFEST, mode=str)
    if manifest is None:
      write_json(workdir / MANIFEST, {"job": "sweep", "mode": mode})
    elif manifest["mode"] != mode:
      allowed = (
        f"another folder: this one holds a sweep to {manifest['mode']}, and "
        f"the command is one to {mode}"
      )
      raise ConfigError(refusal("--workdir", str(workdir), allowed))

  def path(self, trial: Trial, seed: int) -> Path:
    """Where a run's record is."""
    return self._workdir / "runs" / trial.folder / f"seed={seed}.json"

  def find(self, trial: Trial, seed: int) -> Record | None:
    """The record of a run, or None where it has not finished.

    Raises:
      ConfigError: the record is of another configuration, or of other devices
        and so of other micro-batches; it names the keys.
    """
    path = self.path(trial, seed)
    found = read_json(path, config=dict, metrics=dict, seconds=float)
    if found is None:
      return None
    if absent := with_absent(found["config"])[1]:
      logging.log_first_n(
        *(logging.WARNING, "%s is from before these keys, and has: %s", 1),
        *(path, ", ".join(f"{key}={v!r}" for key, v in absent.items())),
      )
    new = config_to_dict(trial.with_seed(seed))
    differing = differing_keys(found["config"], new)
    if differing:
      end = f"as in {path}; or another --workdir"
      texts = (
        refusal(f"config.{key}", after, f"{before!r}, {end}")
        for key, (before, after) in differing.items()
      )
      raise ConfigError("\n".join(texts))
    check_delta_examples(found, delta_examples(trial.config), path)
    return Record(found["metrics"], found.get("diverged_at"), found["seconds"])

  def add(
    self,
    trial: Trial,
    config: config_dict.ConfigDict,
    outcome: Outcome | Record,
  ) -> Record:
    """Writes the record of a run that has finished."""
    path = self.path(trial, config.seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    values = config_to_dict(config)
    record = Record(outcome.metrics, outcome.diverged_at, outcome.seconds)
    content: dict[str, Any] = {
      "variant": trial.variant,
      "seed": config.seed,
      "setting": trial.values,
      **dataclasses.asdict(record),
      DELTA_EXAMPLES: delta_examples(config),
      "config_hash": config_hash(values),
      "config": values,
    }
    write_json(path, content)
    return record
