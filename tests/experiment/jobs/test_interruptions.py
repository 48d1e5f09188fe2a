"""SIGTERM saves and ends; two runs do not share a folder."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forgetsam.experiment.config import ConfigError
from forgetsam.experiment.run import Reporter, WorkdirLock
from main import run as run_main

Arguments = Callable[..., list[str]]


def run(arguments: list[str]) -> int:
  return run_main(arguments, started=0.0)


def test_sigterm_saves_and_the_run_goes_on_to_the_same_end(
  finished: tuple[Path, dict[str, Any]],
  arguments: Arguments,
  tmp_path: Path,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  before = signal.getsignal(signal.SIGTERM)
  advance = Reporter.advance

  def end_at_seven(self: Reporter, done: int) -> None:
    advance(self, done)
    if done == 6:  # of ten: the loop has dispatched the seventh
      os.kill(os.getpid(), signal.SIGTERM)

  monkeypatch.setattr(Reporter, "advance", end_at_seven)
  assert run(arguments()) == 0
  assert "step 7 of 10 is saved" in capsys.readouterr().out
  assert not (tmp_path / "run" / "summary.json").exists()
  assert signal.getsignal(signal.SIGTERM) is before
  monkeypatch.setattr(Reporter, "advance", advance)
  assert run(arguments()) == 0
  assert "Resuming at step 7 of 10" in capsys.readouterr().out

  def lasting(summary: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in summary.items() if "seconds" not in k}

  summary = json.loads((tmp_path / "run" / "summary.json").read_text())
  assert lasting(summary) == lasting(finished[1])


def test_two_runs_in_one_folder_are_refused(
  arguments: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
  (tmp_path / "run").mkdir()
  with WorkdirLock(tmp_path / "run"):
    assert run(arguments()) == 2
    said = capsys.readouterr().err
    assert f"process {os.getpid()} trains in it" in said
    assert not (tmp_path / "run" / "config.json").exists()
  with WorkdirLock(tmp_path / "run"):  # let go with the block
    pass


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path):
  with pytest.raises(ConfigError, match="can be written to"):
    WorkdirLock(tmp_path / "missing")
