"""Reports a run: log lines or a progress bar, and TensorBoard's files."""

import functools
import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags
from absl import logging as absl_logging
from tqdm import tqdm

from forgetsam.experiment.run._processes import is_main

_LOGGER = logging.getLogger("forgetsam")


def set_up_logging() -> None:
  """Shows this project's lines and all warnings, not every library's words."""
  flags.FLAGS.mark_as_parsed()  # absl's own flags keep their defaults
  absl_logging.set_verbosity(absl_logging.INFO)
  absl_logging.use_absl_handler()
  handler = absl_logging.get_absl_handler()
  handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
  handler.addFilter(
    lambda record: (
      (record.levelno >= logging.WARNING or record.name == _LOGGER.name)
      # What orbax logs with a traceback is raised as well.
      and not (record.exc_info and "orbax" in record.pathname)
    )
  )


def log_stage(text: str, seconds: float) -> None:
  """Logs what a program begins to do, and the seconds since its start."""
  _LOGGER.info("%s", _stage(text, seconds))


def _stage(text: str, seconds: float) -> str:
  return f"{seconds:5.1f} s  {text} ..."


class Reporter:
  """Writes metrics to TensorBoard and the terminal or log, in process 0 alone.

  Args:
    folder: where TensorBoard's events go.
    start: the first step of this session.
    stop: the run's number of steps.
    every: steps between log lines.
  """

  def __init__(self, folder: Path, start: int, stop: int, every: int):
    terminal = sys.stderr.isatty() and is_main()
    self._folder = folder
    self._bar = tqdm(
      total=stop, initial=start, unit="step", disable=not terminal
    )
    self._stop, self._every = stop, every
    # Own code: clu's ReportProgress counts evaluations and compilation as
    # training, and writes lines of its own.
    self._last: tuple[int, float] | None = None

  def __enter__(self) -> "Reporter":
    return self

  def __exit__(self, *_: object) -> None:
    self._bar.close()
    if "_writer" in self.__dict__:
      self._writer.close()

  @functools.cached_property
  def _writer(self) -> Any:
    # The writers import Keras, in seconds: not before the first step runs.
    from clu import metric_writers

    if not is_main():
      return metric_writers.MultiWriter([])
    return metric_writers.SummaryWriter(str(self._folder))

  def due(self, done: int) -> bool:
    """True where the metrics of the step that ends at `done` are written."""
    return done % self._every == 0 or done == self._stop

  def advance(self, done: int) -> None:
    """Notes that `done` steps are finished."""
    self._bar.update(done - self._bar.n)
    if self._last is None:  # the first step compiles: it sets no rate
      self._last = done, time.perf_counter()

  def training(self, done: int, metrics: Mapping[str, float]) -> None:
    """Writes a step's metrics, the steps per second and the time left."""
    values = {f"train/{name}": value for name, value in metrics.items()}
    assert self._last is not None
    since, start = self._last
    if done > since:
      rate = (done - since) / max(time.perf_counter() - start, 1e-9)
      values["steps_per_second"] = rate
      values["seconds_left"] = (self._stop - done) / rate
    self._last = done, time.perf_counter()
    self._writer.write_scalars(done, values)
    self._bar.set_postfix(loss=f"{metrics['loss']:.4f}")
    if self._bar.disable:
      self._say(f"{self._at(done)}  {_training_columns(values)}")

  def probe(self, done: int, values: Mapping[str, Any]) -> None:
    """Writes the forgetting that is measured on the probe."""
    self._writer.write_scalars(
      done, {f"probe/{name}": float(value) for name, value in values.items()}
    )

  def evaluation(
    self, done: int, split: str, metrics: Mapping[str, float]
  ) -> None:
    """Writes a split's metrics."""
    values = {f"{split}/{name}": value for name, value in metrics.items()}
    self._writer.write_scalars(done, values)
    columns = [f"{name} {metrics[name]:.4f}" for name in ("loss", "accuracy")]
    self._say(f"{self._at(done)}  {'  '.join(columns)}  on {split}")

  def stage(self, text: str, seconds: float) -> None:
    """Says what the run begins to do, as `log_stage`."""
    self._say(_stage(text, seconds))

  def _say(self, line: str) -> None:
    if self._bar.disable:
      _LOGGER.info("%s", line)
    else:
      self._bar.write(line, file=sys.stderr)

  def _at(self, done: int) -> str:
    return f"step {done:>{len(str(self._stop))}}/{self._stop}"


def _training_columns(values: Mapping[str, float]) -> str:
  columns = [f"loss {_loss(values['train/loss'])}"]
  if "train/accuracy" in values:
    columns.append(f"accuracy {values['train/accuracy']:.3f}")
  if "train/perturbed_loss" in values:
    columns.append(f"perturbed {_loss(values['train/perturbed_loss'])}")
  if skipped := values.get("train/skipped_steps"):
    columns.append(f"skipped {skipped:.0f}")
  if "steps_per_second" in values:
    rate, left = values["steps_per_second"], values["seconds_left"]
    shown = f"{rate:.2g}" if rate < 1 else tqdm.format_sizeof(rate)
    columns += [f"{shown:>5}/s", f"{_duration(left)} left"]
  return "  ".join(columns)


def _loss(value: float) -> str:
  if value >= 1e4:
    return f"{value:.2g}"
  return f"{value:6.4f}" if value < 10 else f"{value:6.4g}"


def _duration(seconds: float) -> str:
  if seconds >= 3600:
    return f"{seconds / 3600:.1f}h"
  return tqdm.format_interval(seconds)


def print_summary(workdir: Path, summary: Mapping[str, Any]) -> None:
  """Prints the end of a run in a few lines."""
  skipped = summary.get("skipped_steps", 0)
  more = f", and passed over {skipped} that were not finite" if skipped else ""
  print(f"\nFinished {summary['steps']} steps{more}.")
  rows = [
    ("test accuracy", "test/accuracy"),
    ("test accuracy of the best checkpoint", "best/test/accuracy"),
    ("validation accuracy", "validation/accuracy"),
    ("training accuracy, last epoch", "train/accuracy"),
  ]
  for text, key in rows:
    if key in summary:
      print(f"  {text:<40}{summary[key]:.4f}")
  print(f"  {'wall time':<40}{summary['wall_seconds']:.1f} s")
  startup = f"{summary['startup_seconds']:.1f} s"
  print(f"  {'of which before the first step':<40}{startup}")
  print(f"  {'files':<40}{workdir}")
