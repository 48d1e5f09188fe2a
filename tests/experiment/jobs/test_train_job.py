"""Whole runs of a tiny model: what they write, and how they go on."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from poisoned import poison
from tiny_runs import tiny

import main
from forgetsam import data, load_run
from forgetsam.experiment.run import (
  Checkpoints,
  Experiment,
  Loop,
  read_events,
  read_metrics,
  tree_sha256,
)

Arguments = Callable[..., list[str]]


def run(arguments: list[str]) -> int:
  return main.run(arguments, time.monotonic())


def read(path: Path) -> dict[str, Any]:
  return json.loads(path.read_text())


def lasting(summary: dict[str, Any]) -> dict[str, Any]:
  """A summary without what the clock decides."""
  return {k: v for k, v in summary.items() if not k.endswith("_seconds")}


def test_summary(finished: tuple[Path, dict[str, Any]]):
  workdir, summary = finished
  names = ("loss", "accuracy")
  scores = (*names, "top5_accuracy", "ece", "count")
  assert set(summary) == {
    *("job", "config_hash", "steps", "skipped_steps"),
    "skipped_examples",
    *("wall_seconds", "startup_seconds"),
    *(f"train/{n}" for n in (*names, "grad_norm", "ascent_grad_norm")),
    *("train/perturbed_loss", "train/perturbation_norm"),
    *(f"{s}/{n}" for s in ("validation", "test", "best/test") for n in scores),
    *("best/step", "params_sha256"),
  }
  assert summary["job"] == "train"
  assert summary["steps"] == 10
  assert summary["wall_seconds"] > summary["startup_seconds"] > 0
  assert summary["train/perturbation_norm"] == pytest.approx(0.2, rel=1e-5)
  assert read(workdir / "config.json")["perturbation"]["rho"] == 0.2
  assert list(workdir.glob("events.out.tfevents.*"))


def test_summary_describes_the_last_checkpoint(
  finished: tuple[Path, dict[str, Any]],
):
  workdir, summary = finished
  model, variables, config = load_run(workdir, "last")
  assert tree_sha256(variables["params"]) == summary["params_sha256"]
  images = data.load("digits", data_dir=config.data.dir)
  x = (images.test.images / 255.0 - config.data.mean) / config.data.std
  logits = model.apply(variables, x.astype(np.float32), train=False)
  right = np.argmax(logits, -1) == images.test.labels
  assert len(right) == 360
  assert np.mean(right) == pytest.approx(summary["test/accuracy"], abs=1e-6)


def test_load_run_refuses_what_is_not_there(
  finished: tuple[Path, dict[str, Any]], tmp_path: Path
):
  with pytest.raises(ValueError, match=r"config\.json"):
    load_run(tmp_path)
  with pytest.raises(ValueError, match="'best' or 'last'"):
    load_run(finished[0], "newest")


def test_a_complete_run_says_so_and_does_nothing(
  finished: tuple[Path, dict[str, Any]],
  data_dir: Path,
  capsys: pytest.CaptureFixture[str],
):
  workdir, _ = finished
  before = {p: p.stat().st_mtime_ns for p in workdir.rglob("*")}
  assert run(tiny(workdir, data_dir)) == 0
  assert "is complete" in capsys.readouterr().out
  assert {p: p.stat().st_mtime_ns for p in workdir.rglob("*")} == before


def test_another_configuration_is_refused(
  finished: tuple[Path, dict[str, Any]],
  data_dir: Path,
  capsys: pytest.CaptureFixture[str],
):
  workdir, _ = finished
  extra = ["--config.seed=1", "--config.perturbation.rho=0.3"]
  assert run(tiny(workdir, data_dir, *extra)) == 2
  said = capsys.readouterr().err
  assert "config.seed=1" in said
  assert "config.perturbation.rho=0.3" in said
  assert "config.log" not in said


def test_evaluate_agrees_with_the_summary(
  finished: tuple[Path, dict[str, Any]],
  capsys: pytest.CaptureFixture[str],
):
  workdir, summary = finished
  assert run(["--job=evaluate", f"--workdir={workdir}"]) == 0
  result = read(workdir / "evaluation.json")
  assert result["last/step"] == 10
  assert result["best/step"] == summary["best/step"]
  for name in ("loss", "accuracy"):
    assert result[f"last/test/{name}"] == summary[f"test/{name}"]
    assert result[f"best/test/{name}"] == summary[f"best/test/{name}"]
    assert result[f"last/validation/{name}"] == summary[f"validation/{name}"]
  assert result["best/validation/accuracy"] >= summary["validation/accuracy"]
  said = capsys.readouterr().out
  assert f"best, step {summary['best/step']}" in said
  assert f"{100 * summary['best/test/accuracy']:.2f}" in said


class Killed(BaseException):
  """Stands for a kill: no handler of the program expects it."""


def test_a_run_killed_three_times_ends_as_an_undisturbed_one(
  finished: tuple[Path, dict[str, Any]],
  arguments: Arguments,
  tmp_path: Path,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  every = "--config.checkpoint.every_steps=2"
  settle = Loop._settle
  # In the middle of an epoch, after a saved epoch's end, in the next middle.
  for step, resumed_at in [(2, None), (5, 2), (7, 5), (None, 6)]:

    def fall(self: Any, pending: Any, state: Any, last: Any = step) -> None:
      if pending.step == last:
        raise Killed
      settle(self, pending, state)

    monkeypatch.setattr(Loop, "_settle", fall)
    if step is None:
      assert run(arguments("obf", every)) == 0
    else:
      with pytest.raises(Killed):
        run(arguments("obf", every))
      assert not (tmp_path / "run" / "summary.json").exists()
    said = capsys.readouterr().out
    assert ("Resuming" in said) is (resumed_at is not None)
    assert resumed_at is None or f"at step {resumed_at} of 10" in said
  resumed = read(tmp_path / "run" / "summary.json")
  assert lasting(resumed) == lasting(finished[1])
  logged, undisturbed = (
    {k: v for k, v in read_metrics(folder).items() if "second" not in k}
    for folder in (tmp_path / "run", finished[0])
  )
  assert logged == undisturbed


def test_metrics_csv_holds_what_the_events_hold(
  finished: tuple[Path, dict[str, Any]],
):
  workdir, summary = finished
  rows, events = read_metrics(workdir), read_events(workdir)
  assert rows.keys() == events.keys()
  for name, values in rows.items():
    assert values == pytest.approx(events[name], rel=1e-6, nan_ok=True)
  header, *lines = (workdir / "metrics.csv").read_text().splitlines()
  assert header.startswith("step,train/")
  assert [line.split(",")[0] for line in lines] == ["4", "5", "8", "10"]
  for name in ("test/accuracy", "best/test/loss", "validation/ece"):
    assert rows[name][10] == pytest.approx(summary[name], rel=1e-6)


def test_wall_seconds_add_up_over_sessions(
  arguments: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  save = Checkpoints.save

  def earlier(
    self: Any, state: Any, record: Any, *rest: Any, **on: Any
  ) -> None:
    save(self, state, {**record, "wall_seconds": 1000.0}, *rest, **on)
    raise Killed

  with monkeypatch.context() as patch:
    patch.setattr(Checkpoints, "save", earlier)
    with pytest.raises(Killed):
      run(arguments("plain"))
  assert run(arguments("plain")) == 0
  assert read(tmp_path / "run" / "summary.json")["wall_seconds"] > 1000.0


def test_a_non_finite_step_stops_with_its_number_and_the_state_before_it(
  arguments: Arguments,
  tmp_path: Path,
  capsys: pytest.CaptureFixture[str],
  monkeypatch: pytest.MonkeyPatch,
):
  poisoned = poison(data.MemorySource.train_batches, {3})
  states: list[str] = []
  settle = Loop._settle

  def watch(self: Any, pending: Any, state: Any) -> None:
    states.append(tree_sha256(state.params))
    settle(self, pending, state)

  with monkeypatch.context() as patch:
    patch.setattr(data.MemorySource, "train_batches", poisoned)
    patch.setattr(Loop, "_settle", watch)
    assert run(arguments("obf")) == 1
  said = capsys.readouterr().err
  assert "step 3 is not finite" in said
  assert "loss=nan" in said
  assert (tmp_path / "run" / "checkpoints" / "3").is_dir()
  _, variables, _ = load_run(tmp_path / "run")
  # The step after the bad one was dispatched already, and trained nothing:
  # what is saved is the state that the bad step found.
  saved = tree_sha256(variables["params"])
  assert states[0] != states[1]  # each seen once the next step is dispatched
  assert states[1] == states[2] == states[3] == saved
  # The data are good this time: the run goes on from there.
  assert run(arguments("obf")) == 0
  assert read(tmp_path / "run" / "summary.json")["steps"] == 10


def test_best_is_by_validation_and_may_be_an_earlier_step(
  arguments: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  evaluate, splits = Experiment.evaluate, []

  def falling(self: Any, variables: Any, split: str) -> dict[str, float]:
    splits.append(split)
    found = evaluate(self, variables, split)
    if split == "validation":
      found[split] |= {"loss": 1.0, "accuracy": 1.0 / int(variables.step)}
    return found

  monkeypatch.setattr(Experiment, "evaluate", falling)
  assert run(arguments("obf")) == 0
  # The loop scores validation alone; the last and the best state end with test.
  assert splits == [*["validation"] * 3, "test", "test"]
  summary = read(tmp_path / "run" / "summary.json")
  assert summary["best/step"] == 5
  assert summary["best/test/loss"] != summary["test/loss"]
  _, last, _ = load_run(tmp_path / "run", "last")
  _, best, _ = load_run(tmp_path / "run")
  assert tree_sha256(last["params"]) == summary["params_sha256"]
  assert tree_sha256(best["params"]) != summary["params_sha256"]


def test_without_validation_there_is_no_best(
  arguments: Arguments, tmp_path: Path
):
  assert run(arguments("plain", "--config.data.validation=0.0")) == 0
  summary = read(tmp_path / "run" / "summary.json")
  assert not [k for k in summary if k.startswith(("best", "validation"))]
  assert "test/accuracy" in summary
  evaluated = ["--job=evaluate", f"--workdir={tmp_path / 'run'}"]
  assert run(evaluated) == 0
  result = read(tmp_path / "run" / "evaluation.json")
  assert {k.partition("/")[0] for k in result} == {"last"}


def test_profile_writes_a_trace(arguments: Arguments, tmp_path: Path):
  assert run(arguments("plain", "--config.log.profile=true")) == 0
  assert list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))


def test_log_lines_hold_pace_and_rates(
  arguments: Arguments, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
  with caplog.at_level("INFO"):
    assert run(arguments("sam", "--config.perturbation.rho=0.05")) == 0
  lines = [r.getMessage() for r in caplog.records]
  training = [line for line in lines if "left" in line]
  assert [line[:12] for line in training] == [
    *("step  4/10  ", "step  8/10  ", "step 10/10  ")
  ]
  for line in training:
    assert len(line) < 90
    for name in ("loss ", "accuracy ", "perturbed ", "/s"):
      assert name in line
  assert len({line.index("perturbed") for line in training}) == 1
  # The rest is in the files.
  found = read_metrics(tmp_path / "run")
  assert list(found["train/rho"]) == [4, 8, 10]
  assert found["train/rho"][4] == pytest.approx(0.05)
  assert found["steps_per_second"][8] > 0
  assert found["seconds_left"][10] == 0
  assert 0 <= found["validation/accuracy"][5] <= 1
  # cosine decay from 2e-3 over ten steps, read at step 3
  expected = 2e-3 * 0.5 * (1 + np.cos(np.pi * 0.3))
  assert found["train/learning_rate"][4] == pytest.approx(expected, rel=1e-5)


def test_what_takes_seconds_is_said_before_it_begins(
  arguments: Arguments, caplog: pytest.LogCaptureFixture
):
  with caplog.at_level("INFO"):
    assert run(arguments("plain")) == 0
  lines = [r.getMessage() for r in caplog.records if " s  " in r.getMessage()]
  assert [line.split(" s  ")[1].split()[0] for line in lines] == [
    *("opening", "initialising", "compiling")
  ]


def test_data_that_do_not_fit_are_refused(
  arguments: Arguments, capsys: pytest.CaptureFixture[str]
):
  assert run(arguments("plain", "--config.data.train_examples=32")) == 2
  assert "config.batch_size=64" in capsys.readouterr().err
  assert run(arguments("plain", "--config.data.train_examples=99999")) == 2
  assert "train_examples" in capsys.readouterr().err
