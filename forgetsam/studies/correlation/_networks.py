"""The study's table: a row for each network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool

from forgetsam.experiment.sweep import Record, Records, Trial
from forgetsam.studies.correlation._plan import Arm

# Columns of one length.
Networks = dict[str, np.ndarray]

# What a method's row says of its setting; the analysis conditions on these.
AXES = ("method", "gamma", "rho", "m", "learning_rate", "weight_decay")
_RENAMED = {
  "validation/accuracy": "held_out_accuracy",
  "validation/loss": "held_out_loss",
}


def collect_networks(arms: Sequence[Arm], workdir: Path) -> Networks:
  """Reads the records of all networks that have one.

  Args:
    arms: as `plan_study` returns them.
    workdir: the study's folder.

  Returns:
    Columns by name: the arm, the setting's keys, the seed, whether training
    diverged, and every measure, nan where it did.

  Raises:
    ConfigError: a record is of another configuration, or there is none.
  """
  rows = []
  for arm in arms:
    records = Records(workdir / arm.name, "report")
    for trial, seed in arm.runs():
      record = records.find(trial, seed)
      if record is not None:
        rows.append(_row(arm.name, trial, seed, record))
  names = list(dict.fromkeys(name for row in rows for name in row))
  return {
    name: np.array([row.get(name, np.nan) for row in rows]) for name in names
  }


def write_networks(path: Path, networks: Networks) -> None:
  """Writes the table as Parquet; measures in single precision."""
  measures = {
    name: c.astype(np.float32)
    for name, c in networks.items()
    if c.dtype.kind == "f" and name not in AXES
  }
  pq.write_table(pa.table(networks | measures), path, compression="zstd")


def read_networks(path: Path | str) -> Networks:
  """Reads what `write_networks` wrote; measures as float64."""
  # Python's floats become float64.
  columns = pq.read_table(path).to_pydict()
  return {name: np.asarray(values) for name, values in columns.items()}


def choose(networks: Networks, rows: Bool[np.ndarray, " n"]) -> Networks:
  """The rows of a mask.

  Example:
    >>> choose({"rho": np.array([0.1, 0.2])}, np.array([False, True]))
    {'rho': array([0.2])}
  """
  return {name: column[rows] for name, column in networks.items()}


def _row(arm: str, trial: Trial, seed: int, record: Record) -> dict[str, Any]:
  config = trial.config
  obf = config.ascent.name == "output_bias_forgetting"
  plain = config.perturbation.name == "none"
  row: dict[str, Any] = {
    "arm": arm,
    "method": trial.variant,
    "gamma": config.ascent.gamma if obf else np.nan,
    "rho": 0.0 if plain else config.perturbation.rho,
    "m": config.micro_batch_size or config.batch_size,
    "learning_rate": config.optimizer.learning_rate,
    "weight_decay": config.optimizer.weight_decay,
    "seed": seed,
    "setting": trial.folder,
    "diverged": record.diverged_at is not None,
    "epochs": config.epochs,
    "seconds": record.seconds,
  }
  for name, value in record.metrics.items():
    if "_se@" in name:
      continue  # half of the columns, and nothing reads them
    if "/" not in name:
      row[name] = value
    elif name in _RENAMED:
      row[_RENAMED[name]] = value
  if record.metrics:
    row["accuracy_gap"] = row["train_accuracy"] - row["test_accuracy"]
  return row
