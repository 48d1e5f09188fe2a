"""The lines of a run's log."""

import itertools
import logging
from collections.abc import Mapping

import pytest

from forgetsam import data
from forgetsam.experiment.run import Intervals, Reporter
from forgetsam.experiment.run._reporting import _is_shown


@pytest.mark.parametrize(
  ("path", "level", "shown"),
  [
    (data.__file__, logging.INFO, True),
    (pytest.__file__, logging.INFO, False),
    (pytest.__file__, logging.WARNING, True),
  ],
)
def test_lines_of_every_module_of_the_project_are_shown(
  path: str, level: int, shown: bool
):
  record = logging.LogRecord("absl", level, path, 1, "text", None, None)
  assert _is_shown(record) is shown


@pytest.mark.parametrize("loss", [2.3026, 12.3456, 1.25e7, float("nan")])
def test_log_lines_of_a_million_steps_are_below_100_characters(
  loss: float,
  caplog: pytest.LogCaptureFixture,
  monkeypatch: pytest.MonkeyPatch,
):
  ticks = itertools.count()  # in seconds: about a day is left at the first line
  monkeypatch.setattr("time.perf_counter", lambda: float(next(ticks)))
  million = 1_000_000
  metrics = {"loss": loss, "accuracy": 0.5, "perturbed_loss": loss}
  with (
    caplog.at_level("INFO"),
    Reporter(0, million, Intervals(million, None, 10, 1)) as reporter,
  ):
    reporter.advance(1)
    for done in (10, million):
      reporter.training(done, metrics)
  lines = [f"12:34:56 {record.getMessage()}" for record in caplog.records]
  assert len(lines) == 2
  for line in lines:
    assert len(line) < 100
    assert "perturbed" in line
    assert line.endswith(" left")
  assert "step      10/1000000" in lines[0]
  assert "h left" in lines[0]


def test_a_task_of_its_own_shows_its_own_metrics(
  caplog: pytest.LogCaptureFixture,
):
  task = {"loss": 1.5, "perplexity": 4.4817, "bits": 2.0, "third": 1.0}
  with (
    caplog.at_level("INFO"),
    Reporter(0, 10, Intervals(10, None, 5, 1)) as reporter,
  ):
    reporter.advance(1)
    reporter.training(1, task | {"grad_norm": 7.0, "rho": 0.1})
    reporter.evaluation(5, "validation", task | {"count": 100})
  training, evaluation = (record.getMessage() for record in caplog.records)
  expected = "loss 1.5000  perplexity 4.4817  bits 2.0000"
  assert training == f"step  1/10  {expected}"
  assert evaluation == f"step  5/10  {expected}  on validation"


class Slow:
  """A writer that takes a minute of a clock."""

  def __init__(self) -> None:
    self.now, self.values = 0.0, dict[str, float]()

  def write(self, done: int, values: Mapping[str, float]) -> None:
    self.now += 60.0
    self.values = dict(values)

  def flush(self) -> None: ...

  def close(self, *, failed: bool = False) -> None: ...


def test_what_writers_take_is_in_no_step(monkeypatch: pytest.MonkeyPatch):
  slow = Slow()
  monkeypatch.setattr("time.perf_counter", lambda: slow.now)
  with Reporter(0, 100, Intervals(100, None, 10, 1), [slow]) as reporter:
    for done in range(1, 31):
      slow.now += 1.0
      reporter.advance(done)
      if reporter.due(done):
        reporter.training(done, {"loss": 1.0})
  assert slow.values["steps_per_second"] == pytest.approx(1.0)
  assert slow.values["seconds_left"] == pytest.approx(70.0)
