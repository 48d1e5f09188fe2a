"""What a user sees of a run: TensorBoard, and a progress bar or log lines."""

import functools
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from forgetsam.experiment.run._processes import is_main


class Reporter:
  """Writes metrics to TensorBoard and to the terminal or the log.

  Process 0 does so; in the others nothing is written.

  Args:
    folder: where TensorBoard's events go.
    start: the first step of this session.
    stop: the run's number of steps.
    every: steps between log lines.
  """

  def __init__(self, folder: Path, start: int, stop: int, every: int):
    terminal = sys.stderr.isatty() and is_main()
    self._folder, self._logs = folder, not terminal
    self._bar = tqdm(
      total=stop, initial=start, unit="step", disable=not terminal
    )
    self._stop, self._every = stop, every
    self._clock: tuple[int, float] | None = None

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

    writers: list[Any] = []
    if is_main():
      writers.append(metric_writers.SummaryWriter(str(self._folder)))
      if self._logs:
        writers.append(metric_writers.LoggingWriter())
    return metric_writers.MultiWriter(writers)

  def due(self, done: int) -> bool:
    """Whether the metrics of the step that ends at `done` are written."""
    return done % self._every == 0 or done == self._stop

  def advance(self, done: int) -> None:
    """Notes that `done` steps are finished."""
    self._bar.update(done - self._bar.n)
    if self._clock is None:  # the first step compiles: it sets no pace
      self._clock = done, time.perf_counter()

  def training(self, done: int, metrics: Mapping[str, float]) -> None:
    """Writes a step's metrics, the pace and the time left."""
    values = {f"train/{name}": value for name, value in metrics.items()}
    assert self._clock is not None
    since, start = self._clock
    if done > since:
      pace = (done - since) / max(time.perf_counter() - start, 1e-9)
      values["steps_per_second"] = pace
      values["seconds_left"] = (self._stop - done) / pace
    self._clock = done, time.perf_counter()
    self._writer.write_scalars(done, values)
    if "loss" in metrics:
      self._bar.set_postfix(loss=f"{metrics['loss']:.4f}")

  def probe(self, done: int, values: Mapping[str, Any]) -> None:
    """Writes what a probe of the weights found."""
    self._writer.write_scalars(
      done, {f"probe/{name}": float(value) for name, value in values.items()}
    )

  def evaluation(
    self, done: int, split: str, metrics: Mapping[str, float]
  ) -> None:
    """Writes a split's metrics."""
    values = {f"{split}/{name}": value for name, value in metrics.items()}
    self._writer.write_scalars(done, values)
    if not self._bar.disable:
      text = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
      self._bar.write(f"step {done}: {text}", file=sys.stderr)


def print_summary(workdir: Path, summary: Mapping[str, Any]) -> None:
  """The end of a run in a few lines."""
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
