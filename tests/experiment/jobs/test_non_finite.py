"""Steps that are not finite are written down, and stop the run or are skipped.

The batches of chosen steps hold nan, or a label that is no class.
"""

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from poisoned import poison

from forgetsam import data
from forgetsam.experiment.run import (
  Checkpoints,
  EpochMeans,
  Loop,
  NonFiniteStepError,
  NonFiniteSteps,
)
from main import run as run_main

pytestmark = pytest.mark.slow

Arguments = Callable[..., list[str]]
SKIP = "--config.on_nonfinite=skip"
OFTEN = "--config.checkpoint.every_steps=1"
POISONED = {0, 3, 5, 8}  # of ten steps, five in an epoch


def run(arguments: list[str]) -> int:
  return run_main(arguments, started=0.0)


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
  train_batches = data.MemorySource.train_batches

  def apply(steps: Collection[int]) -> None:
    monkeypatch.setattr(
      data.MemorySource, "train_batches", poison(train_batches, steps)
    )

  return apply


def summary(folder: Path) -> dict[str, Any]:
  found = json.loads((folder / "summary.json").read_text())
  return {k: v for k, v in found.items() if "seconds" not in k}


def lines(folder: Path) -> list[dict[str, Any]]:
  text = (folder / "nonfinite.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


def test_a_bad_batch_is_written_down_where_it_stops_the_run(
  arguments: Arguments,
  tmp_path: Path,
  poisoned: Callable[..., None],
  capsys: pytest.CaptureFixture[str],
):
  poisoned({3})
  for _ in range(2):  # the second run meets it again, and has one line too
    assert run(arguments("obf")) == 1
    said = capsys.readouterr().err
    assert "step 3 is not finite: accuracy=" in said
    assert " loss=nan" in said
    assert "whose label is no class" in said
    assert str(tmp_path / "run" / "nonfinite.jsonl") in said
    [line] = lines(tmp_path / "run")
  assert line["step"] == 3
  assert line["metrics"]["loss"] == "nan"
  # What the batch held, found in the whole training split by its pixels.
  poisoned({})
  options = {"validation": 0.1, "train_examples": 320}
  folder = next(a for a in arguments() if "data.dir" in a).partition("=")[2]
  split = data.load("digits", data_dir=folder, **options).train
  source = data.MemorySource(split, 10, 0.5, 0.5)
  [batch] = source.train_batches(
    batch_size=64, seed=0, start_step=3, num_steps=1
  )
  whole = data.load("digits", data_dir=folder).train
  expected = whole.images[line["indices"]].astype(np.float32)
  np.testing.assert_allclose(batch["image"], expected / 127.5 - 1, atol=1e-6)


class Killed(BaseException):
  """Stands for a process that dies."""


def test_skipped_batches_cost_their_update_alone_and_resume_exactly(
  arguments: Arguments,
  tmp_path: Path,
  poisoned: Callable[..., None],
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  poisoned(POISONED)
  whole = tmp_path / "whole"
  losses: dict[int, float] = {}
  add = EpochMeans.add

  def noting(self: EpochMeans, step: int, metrics: Any) -> None:
    losses[step] = metrics["loss"]
    add(self, step, metrics)

  with monkeypatch.context() as patch:
    patch.setattr(EpochMeans, "add", noting)
    assert run(arguments("obf", SKIP, OFTEN, f"--workdir={whole}")) == 0
  assert "Finished 6 steps, and passed over 4" in capsys.readouterr().out
  expected = summary(whole)
  assert (expected["steps"], expected["skipped_steps"]) == (6, 4)
  assert [line["step"] for line in lines(whole)] == sorted(POISONED)
  assert sorted(losses) == [1, 2, 4, 6, 7, 9]
  of_the_last_epoch = (losses[6] + losses[7] + losses[9]) / 3
  assert expected["train/loss"] == pytest.approx(of_the_last_epoch)
  save = Checkpoints.save

  for dies_at in (1, 4, 9):  # after this checkpoint, each behind a bad step

    def dying(
      self: Any, *args: Any, step: int, at: int = dies_at, **more: Any
    ) -> None:
      save(self, *args, step=step, **more)
      if step == at:
        raise Killed

    folder = tmp_path / f"run{dies_at}"
    command = arguments("obf", SKIP, OFTEN, f"--workdir={folder}")
    with monkeypatch.context() as patch:
      patch.setattr(Checkpoints, "save", dying)
      with pytest.raises(Killed):
        run(command)
    assert run(command) == 0
    assert f"Resuming at step {dies_at} of 10" in capsys.readouterr().out
    assert summary(folder) == expected
    assert lines(folder) == lines(whole)


def test_skipping_is_training_on_the_other_batches(
  arguments: Arguments,
  tmp_path: Path,
  poisoned: Callable[..., None],
  monkeypatch: pytest.MonkeyPatch,
):
  poisoned(POISONED)
  assert run(arguments("obf", SKIP)) == 0
  poisoned({})

  train_batches = data.MemorySource.train_batches

  def without_bad(self: Any, **options: Any) -> Any:
    whole = options | {"num_steps": 10}
    for step, batch in enumerate(train_batches(self, **whole)):
      if step not in POISONED:
        yield batch

  loop_run = Loop.run

  def shorter(self: Any, state: Any, trace: Any) -> Any:
    object.__setattr__(self.experiment, "num_steps", 6)
    monkeypatch.setattr(data.MemorySource, "train_batches", without_bad)
    return loop_run(self, state, trace)

  monkeypatch.setattr(Loop, "run", shorter)
  assert run(arguments("obf", f"--workdir={tmp_path / 'other'}")) == 0
  found, other = summary(tmp_path / "run"), summary(tmp_path / "other")
  assert found["params_sha256"] == other["params_sha256"]


def test_a_run_without_a_good_step_ends_in_an_error(
  arguments: Arguments,
  tmp_path: Path,
  poisoned: Callable[..., None],
  capsys: pytest.CaptureFixture[str],
):
  poisoned(range(10))
  assert run(arguments("obf", SKIP)) == 1
  said = capsys.readouterr().err
  assert "10 steps in a row, up to step 9, are not finite" in said
  assert len(lines(tmp_path / "run")) == 10
  assert run(arguments("obf", SKIP)) == 1  # and again
  assert len(lines(tmp_path / "run")) == 10


def test_a_hundred_in_a_row_are_enough(
  arguments: Arguments,
  poisoned: Callable[..., None],
  capsys: pytest.CaptureFixture[str],
):
  poisoned(range(7, 1000))
  longer = ["--config.epochs=30", "--config.evaluation.every_epochs=30"]
  assert run(arguments("obf", SKIP, *longer)) == 1
  assert "100 steps in a row, up to step 106" in capsys.readouterr().err


def test_only_bad_steps_in_a_row_end_a_run(tmp_path: Path):
  def indices(step: int) -> np.ndarray:
    return np.array([step])

  steps = NonFiniteSteps(tmp_path, True, 3, indices)
  for step in (0, 1, 3, 4):
    if step == 3:
      steps.good()
    steps.bad(step, {"loss": float("inf")})
  # What a checkpoint holds goes on counting.
  resumed = NonFiniteSteps(tmp_path, True, 3, indices, steps.record())
  with pytest.raises(
    NonFiniteStepError, match="3 steps in a row, up to step 5"
  ):
    resumed.bad(5, {"loss": float("inf")})
  assert resumed.skipped == 5
  assert [line["indices"] for line in lines(tmp_path)] == [
    [step] for step in (0, 1, 3, 4, 5)
  ]


def test_means_run_over_the_good_steps_of_an_epoch():
  means = EpochMeans(3)
  means.add(0, {"loss": 1.0})
  means.skip(1)
  means.add(2, {"loss": 3.0})
  assert means.means() == {"loss": 2.0}
  means.skip(3)  # begins an epoch
  assert means.means() == {}


def test_a_sweep_refuses_to_skip(
  arguments: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
  file, _, *rest = arguments()
  command = [file.replace(":obf", ""), *rest, "--job=sweep", SKIP]
  command += [f"--workdir={tmp_path}", "--variants=plain,obf", "--seeds=1"]
  assert run(command) == 2
  assert "config.on_nonfinite='skip'" in capsys.readouterr().err
