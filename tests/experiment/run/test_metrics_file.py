"""`metrics.csv`: whole rows, one a step, whatever ends a run."""

import csv
from pathlib import Path

import pytest

from forgetsam.experiment.config import ConfigError
from forgetsam.experiment.run import (
  Events,
  MetricsFile,
  read_events,
  read_metrics,
)


def write(workdir: Path, start: int, *steps: int) -> MetricsFile:
  """Logs training every step and validation every second."""
  file = MetricsFile(workdir, start)
  for step in steps:
    file.write(step, {"train/loss": step + 0.25})
    if step % 2 == 0:
      file.write(step, {"validation/accuracy": step / 8})
      file.flush()
  return file


def rows(workdir: Path) -> list[list[str]]:
  return list(csv.reader((workdir / "metrics.csv").read_text().splitlines()))


def test_a_step_has_one_row_and_empty_cells(tmp_path: Path):
  write(tmp_path, 0, 1, 2, 3).close()
  assert rows(tmp_path) == [
    ["step", "train/loss", "validation/accuracy"],
    ["1", "1.25", ""],
    ["2", "2.25", "0.25"],
    ["3", "3.25", ""],
  ]


def test_more_values_of_a_written_row_join_it(tmp_path: Path):
  file = write(tmp_path, 0, 1, 2)
  file.write(2, {"test/loss": float("nan"), "a, b": 1.0})
  file.close()
  assert rows(tmp_path)[-1] == ["2", "2.25", "0.25", "nan", "1"]
  assert read_metrics(tmp_path)["a, b"] == {2: 1.0}


@pytest.mark.parametrize("torn", ["", "3,3.", "3,3.25,0.", "4"])
def test_a_killed_run_goes_on_from_its_checkpoint(torn: str, tmp_path: Path):
  undisturbed = tmp_path / "undisturbed"
  undisturbed.mkdir()
  write(undisturbed, 0, *range(1, 7)).close()
  # Saved after step 2; step 3 may be there, whole or in part.
  write(tmp_path, 0, 1, 2, 3).write(4, {})
  with (tmp_path / "metrics.csv").open("a") as file:
    file.write(torn)
  assert list(read_metrics(tmp_path)["train/loss"])[:2] == [1, 2]
  write(tmp_path, 2, *range(3, 7)).close()
  assert rows(tmp_path) == rows(undisturbed)


def test_a_run_that_saved_nothing_begins_anew(tmp_path: Path):
  write(tmp_path, 0, 1, 2)
  write(tmp_path, 0, 1).close()
  assert rows(tmp_path) == [["step", "train/loss"], ["1", "1.25"]]


def test_an_older_run_begins_with_its_events(tmp_path: Path):
  events = Events(tmp_path, {"seed": 0, "model.hidden": (8,), "clip": None})
  for step in (1, 2, 3):
    events.write(step, {"train/loss": step + 0.25})
  events.write(2, {"validation/accuracy": 0.25})
  events.close()
  found = read_metrics(tmp_path)  # without the file
  assert found == read_events(tmp_path)
  assert set(found) == {"train/loss", "validation/accuracy"}  # no hparams
  write(tmp_path, 2, 3).close()
  assert rows(tmp_path)[1:] == [
    ["1", "1.25", ""],
    ["2", "2.25", "0.25"],
    ["3", "3.25", ""],
  ]


@pytest.mark.parametrize(
  "text", ["time,loss\n1,2\n", "step,loss\n1,high\n", "step,loss\n1,2,3\n"]
)
def test_a_file_that_no_run_wrote_is_refused(text: str, tmp_path: Path):
  (tmp_path / "metrics.csv").write_text(text)
  with pytest.raises(ConfigError, match=r"(?s)metrics\.csv is refused.*none"):
    MetricsFile(tmp_path, 1)
