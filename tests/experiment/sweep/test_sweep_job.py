"""Whole sweeps: their files, resuming, choices and refusals."""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
from sweep_runs import ROOT, MadeUpRunner, sweep_arguments

import main
from forgetsam.experiment.run import NonFiniteStepError
from forgetsam.experiment.sweep import Runner

pytestmark = pytest.mark.slow


def run(arguments: list[str]) -> int:
  return main.run(arguments, time.monotonic())


def test_a_comparison_runs_every_variant_and_seed(
  made_up_runs: type[MadeUpRunner],
  data_dir: Path,
  tmp_path: Path,
  capsys: pytest.CaptureFixture[str],
):
  flags = ["--variants=plain,obf", "--seeds=3", "--first_seed=4"]
  arguments = sweep_arguments(tmp_path / "sweep", data_dir, *flags)
  assert run(arguments) == 0
  asked = [
    (config.perturbation.name, config.seed, splits)
    for config, splits in made_up_runs.asked
  ]
  both = ("validation", "test")
  assert asked == [
    *(("none", seed, both) for seed in (4, 5, 6)),
    *(("sam", seed, both) for seed in (4, 5, 6)),
  ]
  said = capsys.readouterr().out
  assert "run 6 of 6  obf, seed 6: validation accuracy 0.7600" in said
  # Accuracies 0.9 - 0.2 + 0.01 seed, whatever the variant.
  table = (tmp_path / "sweep" / "comparison.md").read_text()
  assert "| obf | 0.7500 ± 0.0058 | +0.0000 [+0.0000, +0.0000] | 3 |" in table
  assert table in said
  with (tmp_path / "sweep" / "runs.csv").open() as file:
    rows = list(csv.DictReader(file))
  assert [row["seed"] for row in rows] == ["4", "5", "6"] * 2
  assert float(rows[0]["test/loss"]) == pytest.approx(1 - 0.74)
  assert (tmp_path / "sweep" / "comparison.png").is_file()


def test_a_grid_takes_free_options(
  made_up_runs: type[MadeUpRunner],
  data_dir: Path,
  tmp_path: Path,
  capsys: pytest.CaptureFixture[str],
):
  def sweep(grid: str, variant: str = "sam") -> int:
    flags = [f"--grid={grid}", f"--variants={variant}", "--seeds=1"]
    return run(sweep_arguments(tmp_path / variant, data_dir, *flags))

  assert sweep("optimizer.options.b1=0.8,0.85;model.options.dropout=0.5") == 0
  asked = [config for config, _ in made_up_runs.asked]
  assert [c.optimizer.options.b1 for c in asked] == [0.8, 0.85]
  assert {c.model.options.dropout for c in asked} == {0.5}
  assert sweep("data.options.x=1,2") == 2
  assert "'data.options.x=1,2' is refused" in capsys.readouterr().err
  assert sweep("perturbation.options.x=1,2", "plain") == 2
  assert "perturbs nothing" in capsys.readouterr().err


def test_a_sweep_resumes_run_by_run(
  made_up_runs: type[MadeUpRunner],
  data_dir: Path,
  tmp_path: Path,
  capsys: pytest.CaptureFixture[str],
):
  flags = ["--variants=plain,obf", "--seeds=2"]
  arguments = sweep_arguments(tmp_path / "sweep", data_dir, *flags)
  made_up_runs.stop_at = 3
  assert run(arguments) == 130
  made_up_runs.stop_at = None
  assert "the same command goes on" in capsys.readouterr().err
  assert run(arguments) == 0
  assert len(made_up_runs.asked) == 4  # three before, one after
  said = capsys.readouterr().out
  assert "3 of 4 runs are finished from before." in said
  assert "run 4 of 4" in said
  finished = (tmp_path / "sweep" / "comparison.md").read_text()
  assert run(arguments) == 0
  assert len(made_up_runs.asked) == 4
  assert (tmp_path / "sweep" / "comparison.md").read_text() == finished
  more = [*arguments, "--seeds=3"]  # a sweep can be extended
  assert run(more) == 0
  assert len(made_up_runs.asked) == 6


def test_a_changed_configuration_is_refused_by_its_keys(
  made_up_runs: type[MadeUpRunner],
  data_dir: Path,
  tmp_path: Path,
  capsys: pytest.CaptureFixture[str],
):
  flags = ["--variants=plain", "--seeds=1"]
  arguments = sweep_arguments(tmp_path / "sweep", data_dir, *flags)
  assert run(arguments) == 0
  changed = ["--config.epochs=3", "--config.optimizer.momentum=0.5"]
  assert run([*arguments, *changed]) == 2
  said = capsys.readouterr().err
  assert "config.epochs=3 is refused\n  allowed: 2, as in" in said
  assert "config.optimizer.momentum=0.5 is refused" in said
  assert len(made_up_runs.asked) == 1
  free = ["--config.log.every_steps=3"]  # it moves no weight
  assert run([*arguments, *free]) == 0


def test_perturbed_runs_of_other_micro_batches_do_not_join(
  made_up_runs: type[MadeUpRunner],
  data_dir: Path,
  tmp_path: Path,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  """By default they are a device's share: 8 examples of 8, 64 of one."""

  def sweep(variants: str) -> int:
    share = "--config.micro_batch_size=None"
    flags = [f"--variants={variants}", "--seeds=2", share]
    return run(sweep_arguments(tmp_path / "sweep", data_dir, *flags))

  assert sweep("plain,obf") == 0
  monkeypatch.setattr(jax, "local_device_count", lambda: 1)
  assert sweep("plain") == 0
  capsys.readouterr()
  assert sweep("plain,obf") == 2
  said = " ".join(capsys.readouterr().err.split())
  assert "config.micro_batch_size=None is refused" in said
  assert "have 8 examples there, and would have 64 here" in said
  assert len(made_up_runs.asked) == 4


def test_diverged_runs_are_recorded_and_shown(
  made_up_runs: type[MadeUpRunner], data_dir: Path, tmp_path: Path
):
  flags = ["--variants=plain", "--seeds=2"]
  wild = "--config.optimizer.learning_rate=5"
  arguments = sweep_arguments(tmp_path / "sweep", data_dir, *flags, wild)
  assert run(arguments) == 0
  table = (tmp_path / "sweep" / "comparison.md").read_text()
  assert "| plain | diverged |  | 2, of which 2 diverged |" in table
  assert run(arguments) == 0
  assert len(made_up_runs.asked) == 2  # not tried again
  with (tmp_path / "sweep" / "runs.csv").open() as file:
    assert [r["diverged_at"] for r in csv.DictReader(file)] == ["3", "3"]


def test_kept_runs_are_the_main_jobs(
  data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
  flags = ["--variants=plain", "--seeds=1", "--keep_runs"]
  arguments = sweep_arguments(tmp_path, data_dir, *flags)
  arguments += ["--config.epochs=3", "--config.evaluation.sets=digits@train"]
  assert run(arguments) == 0
  kept = tmp_path / "runs" / "plain" / "seed=0"
  summary = json.loads((kept / "summary.json").read_text())
  scores = json.loads((kept / "evaluation.json").read_text())
  metrics = json.loads(kept.with_suffix(".json").read_text())["metrics"]
  for name in ("test/ece", "best/test/accuracy", "validation/loss"):
    assert metrics[name] == summary[name]
  best = "best/digits@train/accuracy"
  assert metrics[best] == scores[best]
  table = (tmp_path / "comparison.md").read_text()
  for title in ("test calibration error", "best test accuracy"):
    assert f"| variant | {title} | minus plain | runs |" in table
  capsys.readouterr()
  assert run(arguments) == 0  # from its record
  assert "is complete" not in capsys.readouterr().out
  kept.with_suffix(".json").unlink()  # as where it was ended while it scored
  assert run(arguments) == 0
  record = json.loads(kept.with_suffix(".json").read_text())
  assert record["seconds"] > summary["wall_seconds"]
  assert record["metrics"] == metrics


def test_a_kept_run_that_diverges_is_counted_as_such(
  data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  def diverge(*_: object) -> None:
    raise NonFiniteStepError("step 3 is not finite", 3)

  monkeypatch.setattr("forgetsam.experiment.jobs.sweep.train", diverge)
  flags = ["--variants=plain", "--seeds=1", "--keep_runs"]
  assert run(sweep_arguments(tmp_path, data_dir, *flags)) == 0
  record = json.loads((tmp_path / "runs" / "plain" / "seed=0.json").read_text())
  assert record["diverged_at"] == 3


def tune(workdir: Path, data_dir: Path, variant: str, grid: str) -> int:
  flags = [f"--variants={variant}", "--seeds=3", f"--grid={grid}"]
  return run(sweep_arguments(workdir, data_dir, *flags))


def test_tuning_chooses_and_the_choice_is_applied(
  made_up_runs: type[MadeUpRunner],
  data_dir: Path,
  tmp_path: Path,
  capsys: pytest.CaptureFixture[str],
):
  # Accuracy falls with rho; the error over three seeds is 0.0058, so that
  # 0.104 is as good as 0.1, and 0.2 is not. The decay does not matter.
  grid = "perturbation.rho=0.2,0.104,0.1;optimizer.weight_decay=0.3,0.1"
  assert tune(tmp_path / "tune", data_dir, "sam", grid) == 0
  assert len(made_up_runs.asked) == 3 * 6
  assert {splits for _, splits in made_up_runs.asked} == {("validation",)}
  grid = "optimizer.learning_rate=5,0.5,0.25"
  assert tune(tmp_path / "tune", data_dir, "plain", grid) == 0
  best = json.loads((tmp_path / "tune" / "best.json").read_text())
  assert best["sam"]["overrides"] == {
    "perturbation.rho": 0.1,
    "optimizer.weight_decay": 0.1,
  }
  assert best["plain"]["overrides"] == {"optimizer.learning_rate": 0.25}
  assert best["plain"]["seeds"] == [0, 1, 2]
  said = capsys.readouterr().out
  assert "| optimizer.learning_rate=0.25 | 0.7100 ± 0.0058 |" in said
  assert "| optimizer.learning_rate=5.0 | diverged | diverged | 3, of" in said

  made_up_runs.asked.clear()
  flags = ["--variants=plain,sam", f"--settings={tmp_path}/tune/best.json"]
  report = sweep_arguments(tmp_path / "report", data_dir, *flags)
  assert run([*report, "--first_seed=2"]) == 2
  assert "fresh seeds" in capsys.readouterr().err
  assert run([*report, "--first_seed=3", "--seeds=1"]) == 0
  (plain, _), (sam, splits) = made_up_runs.asked
  assert plain.optimizer.learning_rate == 0.25
  assert (sam.perturbation.rho, sam.optimizer.weight_decay) == (0.1, 0.1)
  assert splits == ("validation", "test")


def test_a_choice_with_every_setting_diverged_is_none(
  made_up_runs: type[MadeUpRunner], data_dir: Path, tmp_path: Path
):
  grid = "optimizer.learning_rate=5,6"
  assert tune(tmp_path / "tune", data_dir, "plain", grid) == 0
  assert json.loads((tmp_path / "tune" / "best.json").read_text()) == {}


MANY = (
  *("optimizer.learning_rate", "optimizer.weight_decay", "optimizer.momentum"),
  *("optimizer.clip", "optimizer.shrink_and_perturb", "loss.label_smoothing"),
  "schedule.min_learning_rate",
)
WRONG = [
  (["--variants="], "--variants=''", "plain,sam"),
  (["--variants=plain,plain"], "--variants='plain,plain'", "each once"),
  (["--variants=plain,sma"], "'sma'", "sam"),
  (["--variants=plain", "--seeds=0"], "seeds", "--variants"),
  (["--variants=plain", "--seeds=x"], "seeds", "--variants"),
  (["--variants=plain", "--first_seed=-1"], "first_seed", "--variants"),
  (["--variants=plain", "--first_seed=2147483647"], "--first_seed", "seeds"),
  (["--variants=plain", "--grid=optimizer.lr=1"], "config.optimizer.lr", "key"),
  (
    ["--variants=plain", "--grid=optimizer.weight_decay=0.1,0.10"],
    "--grid='optimizer.weight_decay=0.1'",
    "each setting once",
  ),
  (
    ["--variants=sam", "--grid=perturbation.rho=0.1,-1"],
    "config.perturbation.rho=-1.0",
    "In the sweep's sam perturbation.rho=-1.0",
  ),
  (
    ["--variants=sam,plain", "--grid=perturbation.rho=0.1,0.2"],
    "config.perturbation.rho=0.1",
    "'plain', which perturbs nothing",
  ),
  (["--variants=plain", "--grid=seed=1,2"], "--grid='seed=1,2'", "--seeds"),
  (["--variants=plain", "--grid=epochs=1,2"], "config.epochs='2'", "beside"),
  (["--variants=plain", "--settings=no.json"], "--settings", "best.json"),
  (
    ["--variants=plain", "--settings=no.json", "--tune"],
    "--settings='no.json'",
    "none beside",
  ),
  (
    ["--variants=plain", "--tune", "--keep_runs"],
    "--keep_runs=True",
    "no --grid",
  ),
  (
    ["--variants=plain", "--tune", "--config.data.validation=0"],
    "config.data.validation=0",
    "above 0",
  ),
  (
    ["--variants=plain", "--config.mesh.fsdp=2"],
    "config.mesh.fsdp=2",
    "1 in a sweep",
  ),
  (["--variants=plain", "--config=configs/digits.py:sam"], "digits.py:sam", ""),
  (["--job=train", "--tune"], "--tune=True", "with --job=sweep only"),
  (
    [
      "--variants=plain",
      f"--grid={';'.join(f'{k}=0.123456789012' for k in MANY)}",
    ],
    "--grid='optimizer.learning_rate=0.123456789012, ",
    "at most 255 characters",
  ),
]


@pytest.mark.parametrize(("flags", "named", "allowed"), WRONG)
def test_a_wrong_sweep_is_refused(
  flags: list[str],
  named: str,
  allowed: str,
  made_up_runs: type[MadeUpRunner],
  data_dir: Path,
  tmp_path: Path,
  capsys: pytest.CaptureFixture[str],
):
  assert run(sweep_arguments(tmp_path / "sweep", data_dir, *flags)) == 2
  said = capsys.readouterr().err
  assert named in said
  assert allowed in said
  assert made_up_runs.asked == []


def test_what_fits_no_network_is_said_before_the_runs(
  monkeypatch: pytest.MonkeyPatch,
  data_dir: Path,
  tmp_path: Path,
  capsys: pytest.CaptureFixture[str],
):
  monkeypatch.setattr(Runner, "run", lambda *_: pytest.fail("it ran"))
  grid = "--grid=optimizer.train_only=.*,nothing"
  arguments = ["--variants=plain", grid]
  assert run(sweep_arguments(tmp_path / "sweep", data_dir, *arguments)) == 2
  said = capsys.readouterr().err
  assert "config.optimizer.train_only='nothing' is refused" in said
  assert "matches none of" in said


def test_a_folder_that_takes_no_records_is_said_before_the_runs(
  made_up_runs: type[MadeUpRunner],
  data_dir: Path,
  tmp_path: Path,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  def write(**_: object) -> None:
    raise PermissionError(13, "Permission denied", "file")

  monkeypatch.setattr("tempfile.TemporaryFile", write)
  assert run(sweep_arguments(tmp_path, data_dir, "--variants=plain")) == 2
  assert f"--workdir={tmp_path} is refused" in capsys.readouterr().err
  assert made_up_runs.asked == []


def test_tuning_and_reporting_do_not_share_a_folder(
  made_up_runs: type[MadeUpRunner],
  data_dir: Path,
  tmp_path: Path,
  capsys: pytest.CaptureFixture[str],
):
  arguments = sweep_arguments(tmp_path, data_dir, "--variants=plain")
  assert run([*arguments, "--tune"]) == 0
  assert run(arguments) == 2
  assert "this one holds a sweep to tune" in capsys.readouterr().err


def test_a_terminal_gets_a_bar(
  made_up_runs: type[MadeUpRunner],
  data_dir: Path,
  tmp_path: Path,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
  arguments = sweep_arguments(tmp_path, data_dir, "--variants=plain")
  assert run(arguments) == 0
  said = capsys.readouterr()
  assert "plain, seed 4: validation accuracy 0.7400" in said.err
  assert "5/5" in said.err
  assert "run 5 of 5" not in said.out


def test_a_killed_sweep_loses_the_run_in_progress_alone(
  made_up_runs: type[MadeUpRunner], data_dir: Path, tmp_path: Path
):
  flags = ["--variants=plain", "--seeds=2", "--config.epochs=40"]
  arguments = sweep_arguments(tmp_path / "sweep", data_dir, *flags)
  process = subprocess.Popen(
    [sys.executable, "main.py", *arguments],
    cwd=ROOT,
    env={**os.environ, "PYTHONUNBUFFERED": "1"},
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
  )
  assert process.stdout is not None
  while "run 1 of 2" not in (line := process.stdout.readline()):
    assert line, "the sweep ended before its first run"
  process.kill()
  process.communicate()
  folder = tmp_path / "sweep" / "runs" / "plain"
  first = folder / "seed=0.json"
  before = first.read_bytes(), first.stat().st_mtime_ns
  assert run(arguments) == 0
  assert (first.read_bytes(), first.stat().st_mtime_ns) == before
  assert [config.seed for config, _ in made_up_runs.asked] == [1]
  assert "| 2 |" in (tmp_path / "sweep" / "comparison.md").read_text()
