"""Full disks and folders that cannot be written to: a sentence, and no loss.

A limit on the size of files stands for a full disk: it fails the same calls.
"""

import contextlib
import errno
import json
import os
import resource
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from forgetsam.experiment.jobs import forgetting, sharpness, train
from forgetsam.experiment.run import Reporter, Variables, report_failure
from main import run as run_main

pytestmark = pytest.mark.slow

Arguments = Callable[..., list[str]]
# A checkpoint's largest file holds 130 kB or more.
WIDE = ("--config.model.hidden=(512,)", "--config.checkpoint.every_steps=2")


def run(arguments: list[str]) -> int:
  return run_main(arguments, started=0.0)


def summary(folder: Path) -> dict[str, Any]:
  found = json.loads((folder / "summary.json").read_text())
  return {k: v for k, v in found.items() if "seconds" not in k}


@contextlib.contextmanager
def files_up_to(size: int) -> Iterator[Callable[[], None]]:
  """Gives a function that from then on limits files to `size` bytes."""
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  try:
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fill_at(
  step: int, fill: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
  advance = Reporter.advance

  def advance_and_fill(self: Reporter, done: int) -> None:
    advance(self, done)
    if done == step:
      fill()

  monkeypatch.setattr(Reporter, "advance", advance_and_fill)


# Of orbax's threads, whose errors it also raises.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_at_a_save_leaves_the_checkpoint_before(
  arguments: Arguments,
  tmp_path: Path,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  assert run(arguments("obf", *WIDE, f"--workdir={tmp_path / 'whole'}")) == 0
  with files_up_to(65536) as fill, monkeypatch.context() as patch:
    fill_at(5, fill, patch)
    assert run(arguments("obf", *WIDE)) == 1
  said = capsys.readouterr().err
  assert f"--workdir={tmp_path / 'run'} cannot be written to: " in said
  assert "File too large" in said
  assert "Traceback" not in said.partition("cannot be written to")[2]
  assert "its newest checkpoint is of step" in said
  assert run(arguments("obf", *WIDE)) == 0
  assert "Resuming at step" in capsys.readouterr().out
  assert summary(tmp_path / "run") == summary(tmp_path / "whole")


def test_events_that_cannot_be_written_are_noticed(
  arguments: Arguments,
  tmp_path: Path,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  command = arguments("obf", "--config.log.every_steps=1")
  with files_up_to(600) as fill, monkeypatch.context() as patch:
    fill_at(2, fill, patch)
    assert run(command) == 1
  said = capsys.readouterr().err
  assert "cannot be written to: File too large" in said
  assert str(tmp_path / "run" / "events.out.tfevents") in said
  assert run(command) == 0


def test_the_systems_words_are_said(
  arguments: Arguments,
  tmp_path: Path,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  for number in (errno.ENOSPC, errno.EROFS, errno.EDQUOT):

    def write(path: Path, values: Any, number: int = number) -> None:
      raise OSError(number, "words", str(path))

    with monkeypatch.context() as patch:
      patch.setattr(train, "write_json", write)
      assert run(arguments()) == 1  # all but the first resume at the end
    said = capsys.readouterr().err
    assert f"cannot be written to: {os.strerror(number)}" in said
    assert "summary.json" in said
    assert "newest checkpoint is of step 10" in said
    assert "Traceback" not in said
  assert run(arguments()) == 0  # what was left to do


def test_a_folder_that_orbax_takes_for_a_bucket_is_refused(
  arguments: Arguments, capsys: pytest.CaptureFixture[str]
):
  assert run(arguments("obf", "--workdir=/gs/run")) == 2
  said = capsys.readouterr().err
  assert "--workdir='/gs/run' is refused" in said
  assert "not below /gs, which orbax takes for gs://" in said


@pytest.mark.parametrize("job", ["train", "evaluate", "sweep"])
def test_a_name_that_is_too_long_ends_in_a_sentence(
  job: str,
  arguments: Arguments,
  tmp_path: Path,
  capsys: pytest.CaptureFixture[str],
):
  folder, config = tmp_path / ("x" * 300), "--config=configs/digits.py"
  extra = [config, "--variants=sam"] if job == "sweep" else []
  place = f"--workdir={folder}"
  assert run(arguments("obf", place, f"--job={job}", *extra)) in (1, 2)
  said = capsys.readouterr().err
  assert f"--workdir={folder}" in said
  assert "File name too long" in said
  assert "Traceback" not in said


ODD = ["br[1]", "lr[0.1]/run", "a*b", "a?b", "a\\b", "x/" * 1915 + "x"]


# orbax makes gs:// of every gs:/, the end of `logs:/checkpoints`, too.
BUCKETS = ["logs:", "gs:/run"]


@pytest.mark.parametrize(
  ("name", "allowed"),
  [
    *((name, "none of \\ [ * ?") for name in ODD),
    *((name, "no gs:/") for name in BUCKETS),
  ],
)
def test_a_path_that_loses_checkpoints_is_refused(
  name: str,
  allowed: str,
  arguments: Arguments,
  tmp_path: Path,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  monkeypatch.chdir(tmp_path)
  assert run(arguments("obf", f"--workdir=./{name}")) == 2
  said = capsys.readouterr().err
  assert f"--workdir={name!r} is refused" in said
  assert allowed in said
  assert not list(tmp_path.iterdir())


def test_so_is_one_below_such_a_folder(
  arguments: Arguments,
  tmp_path: Path,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  (tmp_path / "br[1]").mkdir()
  monkeypatch.chdir(tmp_path / "br[1]")
  assert run(arguments("obf", "--workdir=run")) == 2
  assert f"in '{tmp_path}/br[1]/run'" in capsys.readouterr().err


def test_a_checkpoint_that_the_storage_loses_ends_the_run(
  finished: tuple[Path, dict[str, Any]],
  arguments: Arguments,
  tmp_path: Path,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  from forgetsam.experiment.run import _checkpoint

  restore = _checkpoint.restore

  def lose(manager: Any, step: int, target: Any) -> Any:
    if step == 4:
      (manager.directory / "4" / "variables" / "manifest.ocdbt").unlink()
    return restore(manager, step, target)

  often = "--config.checkpoint.every_steps=2"
  with monkeypatch.context() as patch:
    patch.setattr(_checkpoint, "restore", lose)
    assert run(arguments("obf", often)) == 1
  said = capsys.readouterr().err
  assert f"checkpoint 4 in {tmp_path}/run/checkpoints was written, but" in said
  assert "The checkpoints before it stay: [2]" in said
  assert "goes on from them" in said
  assert run(arguments("obf", often)) == 0
  assert "Resuming at step 2 of 10" in capsys.readouterr().out
  lasting = {k: v for k, v in finished[1].items() if "seconds" not in k}
  assert summary(tmp_path / "run") == lasting


@pytest.mark.parametrize("job", ["evaluate", "sharpness", "forgetting"])
def test_a_folder_that_takes_no_results_is_said_before_the_work(
  job: str,
  finished: tuple[Path, dict[str, Any]],
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  def write(**_: Any) -> None:
    raise PermissionError(errno.EACCES, "Permission denied", "file")

  monkeypatch.setattr("tempfile.TemporaryFile", write)
  monkeypatch.setattr("forgetsam.experiment.run._checkpoint.Checkpoints", None)
  assert run([f"--job={job}", f"--workdir={finished[0]}"]) == 2
  said = capsys.readouterr().err
  assert f"--workdir={finished[0]} is refused" in said
  assert "Permission denied" in said
  assert "a folder that can be written to" in said


@pytest.mark.parametrize("job", [sharpness, forgetting])
def test_what_cannot_be_written_is_printed(
  job: Any,
  finished: tuple[Path, dict[str, Any]],
  tmp_path: Path,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  def write(path: Path, values: Any) -> None:
    raise OSError(errno.ENOSPC, "words", str(path))

  sources = types.SimpleNamespace(num_classes=10)
  opened = forgetting.Measured(
    None, sources, {"last": Variables(5, None, None, {})}
  )
  name = job.__name__.rpartition(".")[2]
  monkeypatch.setattr("forgetsam.experiment.jobs._shown.write_json", write)
  monkeypatch.setattr(job, "open_run", lambda *_, **__: opened)
  monkeypatch.setattr(job, "check_classes", lambda *_: None, raising=False)
  found = {"loss": 7.25, "sam/specific/trained/kl/excess": 7.25}
  monkeypatch.setattr(job, "_measurer", lambda *_: lambda *_: found)
  assert run([f"--job={name}", f"--workdir={finished[0]}"]) == 1
  said = capsys.readouterr()
  assert "7.25" in said.out
  assert "No space left" in said.err


def test_a_folder_that_cannot_be_made_is_refused(
  arguments: Arguments, capsys: pytest.CaptureFixture[str]
):
  assert run(arguments("obf", "--workdir=/proc/forgetsam")) == 2
  assert "--workdir=/proc/forgetsam is refused" in capsys.readouterr().err


def test_trouble_is_found_behind_other_errors(
  tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
  behind = RuntimeError("a save failed")
  behind.__cause__ = OSError(errno.ENOSPC, "full", "file")
  text = "RESOURCE_EXHAUSTED: ... No space left on device [os_error_code='28']"
  gone = FileNotFoundError(errno.ENOENT, "gone", "/run/checkpoints/1")
  for error, workdir, about_storage in (
    (behind, tmp_path, True),
    (ValueError(text), tmp_path, True),
    (FileNotFoundError("file"), tmp_path, False),
    (gone, Path("/run"), True),
    (gone, Path("/other"), False),
  ):
    assert report_failure(error, workdir) == 1
    unforeseen = "failed where it should not" in capsys.readouterr().err
    assert unforeseen is not about_storage


def test_a_broken_file_elsewhere_is_named(
  tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
  broken = OSError(errno.EIO, "words", str(tmp_path / "data" / "x.tfrecord"))
  assert report_failure(broken, tmp_path / "run") == 1
  said = capsys.readouterr().err
  assert f"{tmp_path}/data/x.tfrecord cannot be read or written: " in said
  assert "--workdir" not in said


def test_what_is_no_ones_fault_is_said_before_its_traceback(
  arguments: Arguments,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  def fall(*_: Any, **__: Any) -> None:
    raise TypeError("tuple is not a pytree\nmore")

  monkeypatch.setattr("forgetsam.experiment.jobs.train.build_experiment", fall)
  assert run(arguments()) == 1
  said = capsys.readouterr().err.strip()
  assert said.startswith(
    "forgetsam failed where it should not: TypeError: tuple is not a pytree\n"
  )
  assert said.index("Please report it") < said.index("Traceback")
