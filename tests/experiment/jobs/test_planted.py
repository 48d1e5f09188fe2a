"""A run reads data back, never a program: a planted one does not run.

Each plant would create a file. A config *file* is a program that the user chose
to run; what a run wrote, and weights from elsewhere, are not.
"""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from main import run as run_main

pytestmark = [
  pytest.mark.slow,
  # Of threads in which orbax read what is damaged; it raises their errors too.
  pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

Arguments = Callable[..., list[str]]
JOBS = ("train", "evaluate")


class Planted:
  """Unpickled, it creates a file."""

  def __init__(self, target: Path):
    self.target = target

  def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
    return os.mknod, (str(self.target),)


def run(arguments: list[str]) -> int:
  return run_main(arguments, started=0.0)


@pytest.fixture
def target(tmp_path: Path) -> Path:
  return tmp_path / "planted"


@pytest.fixture
def without_summary(finished: tuple[Path, Any], tmp_path: Path) -> Path:
  """A copy of the finished run, which is then taken up again."""
  shutil.copytree(finished[0], tmp_path / "run")
  (tmp_path / "run" / "summary.json").unlink()
  return tmp_path / "run"


def test_the_plant_is_alive(target: Path):
  pickle.loads(pickle.dumps(Planted(target)))
  assert target.exists()


@pytest.mark.parametrize("where", ["beside", "array", "metadata", "record"])
def test_pickles_in_a_checkpoint(
  where: str, without_summary: Path, target: Path, arguments: Arguments
):
  step = without_summary / "checkpoints" / "10"
  plant = pickle.dumps(Planted(target))
  if where == "beside":
    for name in ("checkpoint.pkl", "state.pickle", "variables/leaf.pkl"):
      (step / name).write_bytes(plant)
  else:
    part = step / ("record" if where == "record" else "variables")
    for file in part.rglob("*"):
      is_meta = file.name in ("_METADATA", "metadata")
      if file.is_file() and is_meta == (where != "array"):
        file.write_bytes(plant)
  for job in JOBS:
    options = [f"--workdir={without_summary}", f"--job={job}"]
    run(options if job == "evaluate" else arguments())
  assert not target.exists()


def programs(target: Path) -> list[str]:
  """Texts that run as programs where a reader evaluates what it reads."""
  path = str(target)
  return [
    f"!!python/object/apply:os.mknod ['{path}']",
    f"__import__('os').mknod('{path}')",
    f"{{{{ __import__('os').mknod('{path}') }}}}",
    f"$(touch {path})",
    f"os.mknod('{path}')",
  ]


@pytest.mark.parametrize("key", ["name", "__reduce__", "py/object"])
def test_programs_in_config_json(
  key: str, without_summary: Path, target: Path, arguments: Arguments
):
  file = without_summary / "config.json"
  good = json.loads(file.read_text())
  for text in programs(target):
    bad = {**good, "model": {**good["model"], key: text}}
    file.write_text(json.dumps(bad))
    for job in JOBS:
      options = [f"--workdir={without_summary}", f"--job={job}"]
      assert run(options if job == "evaluate" else arguments()) == 2
  for text in programs(target):  # no JSON at all
    file.write_text(text)
    assert run([f"--workdir={without_summary}", "--job=evaluate"]) == 2
  file.write_bytes(pickle.dumps(Planted(target)))
  assert run(arguments()) == 2
  assert not target.exists()


def test_programs_in_a_checkpoints_record(
  without_summary: Path, target: Path, arguments: Arguments
):
  [file] = (without_summary / "checkpoints" / "10" / "record").glob("metadata")
  text = programs(target)
  file.write_text(json.dumps({"rank": text, "means": text, "sha256": text}))
  run(arguments())
  assert (without_summary / "damaged" / "10").is_dir()
  assert not target.exists()


@pytest.mark.parametrize("suffix", ["safetensors", "npz", "pkl", "msgpack"])
def test_programs_in_weights_from_elsewhere(
  suffix: str,
  target: Path,
  tmp_path: Path,
  arguments: Arguments,
  capsys: pytest.CaptureFixture[str],
):
  file = tmp_path / f"evil.{suffix}"
  file.write_bytes(pickle.dumps(Planted(target)))
  if suffix == "npz":
    np.savez(file, w=np.array([Planted(target)], dtype=object))
  assert run(arguments("obf", f"--config.init_from={file}")) == 2
  said = capsys.readouterr().err
  assert "config.init_from" in said
  assert "Traceback" not in said
  assert not target.exists()
