"""Tiny sweeps on digits, and runs that are made up."""

import sys
from pathlib import Path
from typing import Any

from ml_collections import config_dict

from forgetsam.experiment.config import apply_overrides, load_config_file
from forgetsam.experiment.sweep import Outcome, Record

ROOT = Path(__file__).resolve().parents[3]
if str(ROOT) not in sys.path:  # main.py and configs/ are not in the package
  sys.path.insert(0, str(ROOT))

FILE = f"{ROOT}/configs/digits.py"
OVERRIDES = (
  "--config.data.train_examples=300",  # the last of five batches wraps
  "--config.batch_size=64",
  "--config.micro_batch_size=8",
  "--config.evaluation.batch_size=64",
  "--config.epochs=2",
  "--config.schedule.warmup_epochs=0",
  "--config.model.hidden=(8,)",
)


def sweep_arguments(workdir: Path, data_dir: Path, *extra: str) -> list[str]:
  """The arguments of a tiny sweep."""
  return [
    "--job=sweep",
    f"--config={FILE}",
    f"--workdir={workdir}",
    f"--config.data.dir={data_dir}",
    *OVERRIDES,
    *extra,
  ]


def tiny_config(
  data_dir: Path, variant: str, **values: Any
) -> config_dict.ConfigDict:
  """The configuration of a tiny run; `__` in a key stands for a dot."""
  config = load_config_file(f"{FILE}:{variant}")
  apply_overrides(config, [*OVERRIDES, f"--config.data.dir={data_dir}"])
  config.update_from_flattened_dict(
    {key.replace("__", "."): value for key, value in values.items()}
  )
  return config


def made_up(accuracy: float | None, loss: float = 1.0) -> Record:
  """A record of a run with this accuracy, or of one that diverged."""
  if accuracy is None:
    return Record({}, 7, 0.1)
  metrics = {
    f"{split}/{name}": value
    for split in ("validation", "test")
    for name, value in (("accuracy", accuracy), ("loss", loss))
  }
  return Record(metrics, None, 0.1)


class MadeUpRunner:
  """In place of `Runner`: answers at once, and keeps the questions."""

  stop_at: int | None = None  # the run at which the process is lost
  asked: list[tuple[config_dict.ConfigDict, tuple[str, ...]]] = []  # noqa: RUF012

  def prepare(self, config: config_dict.ConfigDict) -> None:
    """Nothing to load or build."""

  def run(
    self, config: config_dict.ConfigDict, splits: tuple[str, ...]
  ) -> Outcome:
    """Accuracy falls with rho, and rises a little with the seed."""
    if len(self.asked) == self.stop_at:
      raise KeyboardInterrupt
    self.asked.append((config, splits))
    if config.optimizer.learning_rate > 1:
      return Outcome({}, 3, 0.1, state=None)
    accuracy = 0.9 - config.perturbation.rho + 0.01 * config.seed
    metrics = {f"{split}/accuracy": accuracy for split in splits}
    metrics |= {f"{split}/loss": 1 - accuracy for split in splits}
    return Outcome(metrics, None, 0.1, state=None)
