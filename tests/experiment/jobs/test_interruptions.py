"""SIGTERM and Ctrl-C save and end; two runs do not share a folder."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forgetsam.cli import JOBS
from forgetsam.experiment.config import ConfigError
from forgetsam.experiment.run import Preemption, Reporter, WorkdirLock
from main import run as run_main

Arguments = Callable[..., list[str]]
ROOT = Path(__file__).resolve().parents[3]
# Python imports it first: Ctrl-C comes with the import of JAX.
INTERRUPTED_IMPORT = """
import builtins, signal
load = builtins.__import__
def interrupt(name, *arguments, **keywords):
  if name == "jax":
    builtins.__import__ = load
    signal.raise_signal(signal.SIGINT)
  return load(name, *arguments, **keywords)
builtins.__import__ = interrupt
"""


def run(arguments: list[str]) -> int:
  return run_main(arguments, started=0.0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_run_goes_on_to_the_same_end(
  number: signal.Signals,
  finished: tuple[Path, dict[str, Any]],
  arguments: Arguments,
  tmp_path: Path,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  before = signal.getsignal(number)
  advance = Reporter.advance

  def end_at_seven(self: Reporter, done: int) -> None:
    advance(self, done)
    if done == 6:  # of ten: the loop has dispatched the seventh
      os.kill(os.getpid(), number)

  monkeypatch.setattr(Reporter, "advance", end_at_seven)
  assert run(arguments()) == 0
  assert "step 7 of 10 is saved" in capsys.readouterr().out
  assert not (tmp_path / "run" / "summary.json").exists()
  assert signal.getsignal(number) is before
  monkeypatch.setattr(Reporter, "advance", advance)
  assert run(arguments()) == 0
  assert "Resuming at step 7 of 10" in capsys.readouterr().out

  def lasting(summary: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in summary.items() if "seconds" not in k}

  summary = json.loads((tmp_path / "run" / "summary.json").read_text())
  assert lasting(summary) == lasting(finished[1])


def test_the_second_ctrl_c_ends_at_once(capfd: pytest.CaptureFixture[str]):
  with Preemption() as preemption:
    os.kill(os.getpid(), signal.SIGINT)
    assert preemption.requested
    assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    assert "Ctrl-C again ends it at once" in capfd.readouterr().err
  assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_stays_ignored_where_a_shell_says_so():
  before = signal.signal(signal.SIGINT, signal.SIG_IGN)
  try:
    with Preemption() as preemption:
      os.kill(os.getpid(), signal.SIGINT)
      assert not preemption.requested
  finally:
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("job", JOBS)
def test_ctrl_c_ends_a_job_without_a_traceback(
  job: str,
  tmp_path: Path,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  def interrupt(*_: object, **__: object) -> None:
    signal.raise_signal(signal.SIGINT)

  monkeypatch.setattr("forgetsam.cli.keep_compiled_programs", interrupt)
  variants = ["--variants=sam"] if job == "sweep" else []
  assert run([f"--job={job}", f"--workdir={tmp_path}", *variants]) == 130
  said = capsys.readouterr().err
  assert "Interrupted. What was saved stays; the same command goes on" in said
  assert "Traceback" not in said


@pytest.mark.parametrize("program", ["main.py", "-m scripts.demo"])
def test_ctrl_c_while_a_program_imports_ends_without_a_traceback(
  program: str, tmp_path: Path
):
  (tmp_path / "sitecustomize.py").write_text(INTERRUPTED_IMPORT)
  done = subprocess.run(
    [sys.executable, *program.split(), f"--workdir={tmp_path}"],
    cwd=ROOT,
    env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert done.returncode in (130, -signal.SIGINT)
  assert "Traceback" not in done.stderr


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
