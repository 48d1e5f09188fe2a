"""A run's metrics by step: its `metrics.csv`, and TensorBoard's event files."""

import csv
import itertools
from collections.abc import Mapping
from pathlib import Path

from forgetsam.experiment.config import ConfigError
from forgetsam.experiment.run._workdir import write_text
from forgetsam.experiment.tables import csv_text

METRICS = "metrics.csv"

_Rows = dict[int, dict[str, float]]


class MetricsFile:
  """Writes `metrics.csv`: a row for each logged step, a column for each metric.

  A cell is empty where its step has no such value. Rows are written whole, once
  the next step comes or `flush` is called; where a column is new, or a row gets
  more values, the file is replaced.

  Args:
    workdir: the run's folder.
    start: the step that training goes on from. Rows of later steps are dropped:
      those steps are taken again. A run that is older than the file begins it
      with what its events hold.

  Raises:
    ConfigError: the folder's file is not what a run wrote.
  """

  def __init__(self, workdir: Path, start: int):
    self._path = workdir / METRICS
    found = {}
    if start or self._path.exists():
      found = _by_step(read_metrics(workdir))
    self._rows = {step: row for step, row in found.items() if step <= start}
    self._columns = list(dict.fromkeys(itertools.chain(*self._rows.values())))
    self._pending: int | None = None  # the step whose row is not in the file
    self._replaces = True  # the file, rather than to add to it
    if found:
      self.flush()

  def write(self, done: int, values: Mapping[str, float]) -> None:
    """Adds values to the row of a step."""
    if self._pending not in (None, done):
      self.flush()
    new = [name for name in values if name not in self._columns]
    self._replaces |= bool(new) or (
      done in self._rows and self._pending is None
    )
    self._columns += new
    self._rows.setdefault(done, {}).update(values)
    self._pending = done

  def flush(self) -> None:
    """Writes what is not in the file yet."""
    if self._replaces:
      lines = [self._line(step) for step in self._rows]
      write_text(self._path, csv_text(["step", *self._columns], lines))
    elif self._pending is not None:
      with self._path.open("a") as file:
        file.write(csv_text(self._line(self._pending), []))
    self._pending, self._replaces = None, False

  def _line(self, step: int) -> list[str]:
    row = self._rows[step]
    cells = (f"{row[n]:.9g}" if n in row else "" for n in self._columns)
    return [str(step), *cells]

  def close(self, *, failed: bool = False) -> None:
    """Writes the last row."""
    self.flush()


def _by_step(columns: Mapping[str, Mapping[int, float]]) -> _Rows:
  rows: _Rows = {}
  for name, values in columns.items():
    for step, value in values.items():
      rows.setdefault(step, {})[name] = value
  return dict(sorted(rows.items()))


def read_metrics(workdir: Path) -> dict[str, dict[int, float]]:
  """Reads what a run has logged: its `metrics.csv`, or its events without it.

  Args:
    workdir: the run's folder.

  Returns:
    For each name, such as "train/loss" or "validation/accuracy", the values by
    step, ascending.

  Raises:
    ConfigError: the folder's `metrics.csv` is not what a run wrote.
  """
  path = workdir / METRICS
  if not path.exists():
    return read_events(workdir)
  try:
    # A row that was cut short has no end of line; its step was taken again.
    whole = path.read_text().rpartition("\n")[0]
    (first, *names), *rows = csv.reader(whole.splitlines() or ["step"])
    if first != "step":
      raise ValueError(f"its first column is {first!r}")
    found: dict[str, dict[int, float]] = {name: {} for name in names}
    for step, *cells in rows:
      for name, cell in zip(names, cells, strict=True):
        if cell:
          found[name][int(step)] = float(cell)
  except (OSError, ValueError) as error:
    raise ConfigError(
      f"{path} is refused: it is not what a run wrote, {error}\n"
      "  allowed: the file as it was, or none"
    ) from error
  return found


def read_events(workdir: Path) -> dict[str, dict[int, float]]:
  """Reads a run's event files.

  Args:
    workdir: the run's folder.

  Returns:
    As `read_metrics`. Of a step that was taken more than once, the last value.
  """
  from tensorboard.backend.event_processing import event_accumulator
  from tensorboard.util import tensor_util

  events = event_accumulator.EventAccumulator(
    str(workdir), size_guidance={event_accumulator.TENSORS: 0}
  ).Reload()
  found = {}
  for name in events.Tags()["tensors"]:
    if events.SummaryMetadata(name).plugin_data.plugin_name != "scalars":
      continue
    values = {
      event.step: float(tensor_util.make_ndarray(event.tensor_proto))
      for event in events.Tensors(name)
    }
    found[name] = dict(sorted(values.items()))
  return found
