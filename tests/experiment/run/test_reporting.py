"""The lines of a run's log."""

import itertools
from pathlib import Path

import pytest

from forgetsam.experiment.run import Reporter


@pytest.mark.parametrize("loss", [2.3026, 12.3456, 1.25e7, float("nan")])
def test_log_lines_of_a_million_steps_are_below_100_characters(
  loss: float,
  tmp_path: Path,
  caplog: pytest.LogCaptureFixture,
  monkeypatch: pytest.MonkeyPatch,
):
  ticks = itertools.count()  # in seconds: about a day is left at the first line
  monkeypatch.setattr("time.perf_counter", lambda: float(next(ticks)))
  million = 1_000_000
  metrics = {"loss": loss, "accuracy": 0.5, "perturbed_loss": loss}
  with (
    caplog.at_level("INFO"),
    Reporter(tmp_path, 0, million, every=10) as reporter,
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
