"""Where a run's metrics go beside the terminal: files, and W&B where asked."""

import functools
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ml_collections import config_dict

from forgetsam.experiment.config import KEYS, ConfigError, leaves, refusal
from forgetsam.experiment.run._metrics_file import MetricsFile
from forgetsam.experiment.run._workdir import read_json, write_json

WANDB = "wandb.json"


@runtime_checkable
class Writer(Protocol):
  """Takes a run's metrics, step after step."""

  def write(self, done: int, values: Mapping[str, float]) -> None:
    """Writes metrics of the step that ends at `done`."""

  def flush(self) -> None:
    """Returns when what a checkpoint belongs to is kept."""

  def close(self, *, failed: bool = False) -> None:
    """Ends; `failed` where an error ends the run."""


def open_writers(
  workdir: Path, config: config_dict.ConfigDict, start: int
) -> list[Writer]:
  """The writers of a run, which process 0 alone opens.

  Args:
    workdir: the run's folder.
    config: its configuration.
    start: the step that it goes on from.

  Raises:
    ConfigError: W&B does not open the project.
  """
  binding = {k: v for k, v in leaves(config).items() if _decides(k)}
  writers: list[Writer] = [
    MetricsFile(workdir, start),
    Events(workdir, binding),
  ]
  if config.log.wandb is not None:
    writers.append(Wandb(workdir, config.log.wandb, binding))
  return writers


def _decides(key: str) -> bool:
  return key not in KEYS or KEYS[key].binding


class Events:
  """TensorBoard's event files; the configuration is their hparams."""

  def __init__(self, workdir: Path, hparams: Mapping[str, Any]):
    self._workdir, self._hparams = workdir, hparams

  @functools.cached_property
  def _writer(self) -> Any:
    # The writers import Keras, in seconds: not before the first step runs.
    from clu import metric_writers

    writer = metric_writers.SummaryWriter(str(self._workdir))
    writer.write_hparams(
      {
        key: value if isinstance(value, bool | int | float) else str(value)
        for key, value in self._hparams.items()
      }
    )
    return writer

  def write(self, done: int, values: Mapping[str, float]) -> None:
    """Writes scalars."""
    self._writer.write_scalars(done, values)

  def flush(self) -> None:
    """Leaves it to TensorFlow, which writes every two minutes."""

  def close(self, *, failed: bool = False) -> None:
    """Writes the rest."""
    if "_writer" in self.__dict__:
      self._writer.close()


class Wandb:
  """A run in a project of Weights & Biases, which resuming continues.

  Its id lies in the folder's `wandb.json`. W&B ignores steps that it has seen:
  those after the checkpoint that a run resumes from, which are the same.

  Raises:
    ConfigError: W&B is not installed, or does not open the project.
  """

  def __init__(self, workdir: Path, project: str, hparams: Mapping[str, Any]):
    ids = read_json(workdir / WANDB) or {}
    one = str(ids.setdefault(project, secrets.token_hex(4)))
    wandb = _import_wandb(project)
    try:
      self._run = wandb.init(
        project=project,
        id=one,
        resume="allow",
        name=workdir.absolute().name,
        dir=str(workdir),
        config=dict(hparams),
      )
    except Exception as error:
      allowed = f"a project that W&B opens ({error}), or none"
      raise ConfigError(
        refusal("config.log.wandb", project, allowed)
      ) from error
    write_json(workdir / WANDB, ids)

  def write(self, done: int, values: Mapping[str, float]) -> None:
    """Logs the values."""
    self._run.log(dict(values), step=done)

  def flush(self) -> None:
    """Leaves it to W&B, which sends in the background."""

  def close(self, *, failed: bool = False) -> None:
    """Ends the session; W&B marks one that failed."""
    self._run.finish(exit_code=int(failed))


def check_wandb(project: str | None) -> None:
  """Refuses a project where W&B is not installed.

  Raises:
    ConfigError: a project is named, and it is not.
  """
  if project is not None:
    _import_wandb(project)


def _import_wandb(project: str) -> Any:
  try:
    import wandb
  except ImportError as error:
    text = "none where wandb is not installed (pip install wandb)"
    raise _refused(project, text) from error
  return wandb


def _refused(project: str, allowed: str) -> ConfigError:
  return ConfigError(refusal("config.log.wandb", project, allowed))
