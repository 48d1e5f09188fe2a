"""Reports a run: log lines or a progress bar, and what its files hold."""

import contextlib
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags
from absl import logging as absl_logging
from tqdm import tqdm

from forgetsam.experiment.run._metrics import own_metrics
from forgetsam.experiment.run._pace import Pace
from forgetsam.experiment.run._processes import is_main
from forgetsam.experiment.run._writers import Writer

if TYPE_CHECKING:
  from forgetsam.experiment.run._experiment import Intervals

_LOGGER = logging.getLogger("forgetsam")
_PACKAGE = str(Path(__file__).parents[2])


def set_up_logging() -> None:
  """Shows this project's lines and all warnings, not every library's words."""
  flags.FLAGS.mark_as_parsed()  # absl's own flags keep their defaults
  absl_logging.set_verbosity(absl_logging.INFO)
  absl_logging.use_absl_handler()
  handler = absl_logging.get_absl_handler()
  handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
  handler.addFilter(_is_shown)


def _is_shown(record: logging.LogRecord) -> bool:
  if record.exc_info and "orbax" in record.pathname:
    return False  # it is raised as well
  own = record.pathname.startswith(_PACKAGE)
  return own or record.levelno >= logging.WARNING


def log_stage(text: str, seconds: float) -> None:
  """Logs what a program begins to do, and the seconds since its start."""
  _LOGGER.info("%s", _stage(text, seconds))


def _stage(text: str, seconds: float) -> str:
  return f"{seconds:5.1f} s  {text} ..."


class Reporter:
  """Writes metrics to files and to the terminal or log, in process 0 alone.

  Args:
    start: the first step of this session.
    stop: the run's number of steps.
    intervals: the steps between log lines, evaluations and saves.
    writers: of the files; empty in other processes.
  """

  def __init__(
    self,
    start: int,
    stop: int,
    intervals: "Intervals",
    writers: Sequence[Writer] = (),
  ):
    terminal = sys.stderr.isatty() and is_main()
    self._writers = writers
    # Its own time left would count compilation, and no evaluation to come.
    self._bar = tqdm(
      total=stop,
      initial=start,
      disable=not terminal,
      bar_format="{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}{postfix}",
    )
    self._stop, self._every = stop, intervals.log
    self._pace = Pace(stop, intervals.evaluate, intervals.checkpoint)

  def __enter__(self) -> "Reporter":
    return self

  def __exit__(self, kind: object, *_: object) -> None:
    self._bar.close()
    for writer in self._writers:
      writer.close(failed=kind is not None)

  def due(self, done: int) -> bool:
    """True where the metrics of the step that ends at `done` are written."""
    return done % self._every == 0 or done == self._stop

  def advance(self, done: int) -> None:
    """Notes that `done` steps are finished; the first of them compiles."""
    self._bar.update(done - self._bar.n)
    self._pace.begin(done, time.perf_counter())

  @contextlib.contextmanager
  def pause(self, done: int) -> Iterator[None]:
    """Times what comes between two steps: it is in no step's time."""
    began = time.perf_counter()
    self._pace.steps(done, began)
    yield
    self._pace.pause(done, began, time.perf_counter())

  def training(self, done: int, metrics: Mapping[str, float]) -> None:
    """Writes a step's metrics, the steps per second and the time left."""
    values = {f"train/{name}": value for name, value in metrics.items()}
    self._pace.steps(done, time.perf_counter())
    rate, left = self._pace.rate(), self._pace.left(done)
    if rate is not None and left is not None:
      values |= {"steps_per_second": rate, "seconds_left": left}
    self.scalars(done, values)
    # The first time, the writers are imported, in seconds.
    self._pace.resume(done, time.perf_counter())
    columns, pace = _columns(metrics, 3), _pace_columns(rate, left)
    if self._bar.disable:
      self._say("  ".join([self._at(done), *columns, *pace]))
    else:  # a narrow terminal cuts the end
      self._bar.set_postfix_str("  ".join([*pace[::-1], *columns]))

  def probe(self, done: int, values: Mapping[str, Any]) -> None:
    """Writes the forgetting that is measured on the probe."""
    self.scalars(
      done, {f"probe/{name}": float(value) for name, value in values.items()}
    )

  def evaluation(
    self, done: int, split: str, metrics: Mapping[str, float]
  ) -> None:
    """Writes a split's metrics."""
    self.scalars(done, {f"{split}/{k}": v for k, v in metrics.items()})
    text = "  ".join(_columns(metrics, 4))
    self._say(f"{self._at(done)}  {text}  on {split}")

  def scalars(self, done: int, values: Mapping[str, float]) -> None:
    """Writes values to the files alone."""
    for writer in self._writers:
      writer.write(done, values)

  def flush(self) -> None:
    """Returns when the files hold what a checkpoint is about to follow."""
    for writer in self._writers:
      writer.flush()

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


def _columns(metrics: Mapping[str, float], digits: int) -> list[str]:
  """The metrics that a line has room for."""
  columns = [f"loss {_loss(metrics['loss'])}"] if "loss" in metrics else []
  if "accuracy" in metrics:
    columns.append(f"accuracy {metrics['accuracy']:.{digits}f}")
  else:
    own = own_metrics(metrics)[:2]
    columns += [f"{name} {_loss(metrics[name])}" for name in own]
  if "perturbed_loss" in metrics:
    columns.append(f"perturbed {_loss(metrics['perturbed_loss'])}")
  if skipped := metrics.get("skipped_steps"):
    columns.append(f"skipped {skipped:.0f}")
  return columns


def _pace_columns(rate: float | None, left: float | None) -> list[str]:
  if rate is None or left is None:
    return []
  shown = f"{rate:.2g}" if rate < 1 else tqdm.format_sizeof(rate)
  return [f"{shown:>5}/s", f"{duration(left)} left"]


def _loss(value: float) -> str:
  if value >= 1e4:
    return f"{value:.2g}"
  return f"{value:6.4f}" if value < 10 else f"{value:6.4g}"


def duration(seconds: float) -> str:
  """`0:31`, or `2.5h`."""
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
    ("test accuracy of the weights' average", "test/ema/accuracy"),
    ("test accuracy of the worst group", "test/worst_group_accuracy"),
    ("validation accuracy", "validation/accuracy"),
    ("training accuracy, last epoch", "train/accuracy"),
  ]
  if "test/accuracy" not in summary:
    tested = [n for n in summary if n.startswith(("test/", "best/test/"))]
    rows = [(n.replace("/", " "), n) for n in tested if "count" not in n]
  for text, key in rows:
    if key in summary:
      print(f"  {text:<40}{summary[key]:.4f}")
  print(f"  {'wall time':<40}{summary['wall_seconds']:.1f} s")
  startup = f"{summary['startup_seconds']:.1f} s"
  print(f"  {'of which before the first step':<40}{startup}")
  print(f"  {'files':<40}{workdir}")
