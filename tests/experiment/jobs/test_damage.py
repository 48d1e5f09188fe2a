"""A run whose newest checkpoint is damaged goes on from the one before it.

Each kind of damage is done to the files of a run that was asked to end after
eight of ten steps; it must be named, and the end be that of a run that was left
alone, to the bit.
"""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import tiny

from forgetsam.experiment.run import Reporter
from main import run as run_main

# Of threads in which orbax read what is damaged; it raises their errors too.
pytestmark = pytest.mark.filterwarnings(
  "ignore::pytest.PytestUnraisableExceptionWarning"
)

SAVES = ("--config.checkpoint.every_steps=2", "--config.checkpoint.keep=2")


def run(workdir: Path, data_dir: Path) -> int:
  return run_main(tiny(workdir, data_dir, *SAVES), started=0.0)


def summary(folder: Path) -> dict[str, Any]:
  found = json.loads((folder / "summary.json").read_text())
  return {k: v for k, v in found.items() if "seconds" not in k}


@pytest.fixture(scope="module")
def whole(
  tmp_path_factory: pytest.TempPathFactory, data_dir: Path
) -> dict[str, Any]:
  """The summary of a run that is left alone."""
  folder = tmp_path_factory.mktemp("whole")
  assert run(folder, data_dir) == 0
  return summary(folder)


@pytest.fixture(scope="module")
def interrupted(
  tmp_path_factory: pytest.TempPathFactory, data_dir: Path
) -> Path:
  """The folder of a run that ended early, with checkpoints 6 and 8."""
  folder = tmp_path_factory.mktemp("interrupted")
  advance = Reporter.advance

  def end_at_eight(self: Reporter, done: int) -> None:
    advance(self, done)
    if done == 7:  # the loop has dispatched the eighth
      os.kill(os.getpid(), signal.SIGTERM)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(Reporter, "advance", end_at_eight)
    assert run(folder, data_dir) == 0
  assert {"6", "8"} <= {p.name for p in (folder / "checkpoints").iterdir()}
  return folder


def files(part: Path) -> Iterator[Path]:
  return (path for path in part.rglob("*") if path.is_file())


def largest(part: Path) -> Path:
  return max(files(part), key=lambda path: path.stat().st_size)


def flip(file: Path, bit: int = 1) -> None:
  content = bytearray(file.read_bytes())
  content[len(content) // 2] ^= bit
  file.write_bytes(content)


def truncate(file: Path) -> None:
  file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def in_record(step: Path, old: str, new: str) -> None:
  file = largest(step / "record")
  text = file.read_text()
  assert old in text
  file.write_text(text.replace(old, new, 1))


def empty(step: Path) -> None:
  shutil.rmtree(step)
  step.mkdir()


# A name, and what is done to the newest checkpoint's folder.
DAMAGE: dict[str, Callable[[Path], None]] = {
  "flipped bit, parameters": lambda s: flip(largest(s / "variables")),
  "flipped bit, optimizer state": lambda s: flip(largest(s / "training")),
  "flipped bit, record": lambda s: in_record(s, '"count": 3', '"count": 2'),
  "truncated array file": lambda s: truncate(largest(s / "variables")),
  "truncated record": lambda s: truncate(largest(s / "record")),
  "no manifest": lambda s: (s / "variables" / "manifest.ocdbt").unlink(),
  "no parameters": lambda s: shutil.rmtree(s / "variables"),
  "no optimizer state": lambda s: shutil.rmtree(s / "training"),
  "no record": lambda s: shutil.rmtree(s / "record"),
  "record is {}": lambda s: largest(s / "record").write_text("{}"),
  "empty folder": empty,
}


# For every day; the others find the same code.
EVERY_DAY = (
  *("flipped bit, parameters", "flipped bit, record", "truncated array file"),
  *("no record", "empty folder"),
)


@pytest.mark.parametrize(
  "kind",
  [
    pytest.param(kind, marks=() if kind in EVERY_DAY else pytest.mark.long)
    for kind in DAMAGE
  ],
)
def test_damage_is_named_and_undone(
  kind: str,
  whole: dict[str, Any],
  interrupted: Path,
  tmp_path: Path,
  data_dir: Path,
  capsys: pytest.CaptureFixture[str],
  caplog: pytest.LogCaptureFixture,
):
  folder = tmp_path / "run"
  shutil.copytree(interrupted, folder)
  newest = folder / "checkpoints" / "8"
  DAMAGE[kind](newest)
  assert run(folder, data_dir) == 0
  assert f"Checkpoint {newest} is damaged and not used" in caplog.text
  assert "Resuming at step 6 of 10" in capsys.readouterr().out
  assert (folder / "damaged" / "8").is_dir()
  assert summary(folder) == whole


@pytest.mark.long
@pytest.mark.parametrize(
  "name", ["_CHECKPOINT_METADATA", "variables/_METADATA", "training/_METADATA"]
)
def test_a_missing_metadata_file_costs_a_checkpoint_at_most(
  name: str,
  whole: dict[str, Any],
  interrupted: Path,
  tmp_path: Path,
  data_dir: Path,
):
  folder = tmp_path / "run"
  shutil.copytree(interrupted, folder)
  (folder / "checkpoints" / "8" / name).unlink()
  assert run(folder, data_dir) == 0
  assert summary(folder) == whole


def test_where_all_are_damaged_nothing_is_touched(
  interrupted: Path,
  tmp_path: Path,
  data_dir: Path,
  capsys: pytest.CaptureFixture[str],
):
  folder = tmp_path / "run"
  shutil.copytree(interrupted, folder)
  for step in (folder / "checkpoints").iterdir():
    flip(largest(step / "variables"))
  before = {p: p.read_bytes() for p in files(folder / "checkpoints")}
  assert run(folder, data_dir) == 1
  said = capsys.readouterr().err
  assert f"every checkpoint in {folder / 'checkpoints'} is damaged" in said
  assert "Traceback" not in said
  assert {p: p.read_bytes() for p in files(folder / "checkpoints")} == before


@pytest.mark.parametrize("name", ["config.json", "summary.json"])
def test_a_cut_json_file_is_refused_by_name(
  name: str,
  interrupted: Path,
  tmp_path: Path,
  data_dir: Path,
  capsys: pytest.CaptureFixture[str],
):
  folder = tmp_path / "run"
  shutil.copytree(interrupted, folder)
  (folder / name).write_text('{"seed": 0, ')
  assert run(folder, data_dir) == 2
  assert f"{folder / name} is refused" in capsys.readouterr().err
