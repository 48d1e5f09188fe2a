"""The commands of scripts/noisy_cifar10.sh: accepted, and of equal budgets."""

import math
import os
import subprocess
from pathlib import Path

import pytest

from forgetsam.experiment.config import check_config
from forgetsam.experiment.sweep import parse_grid, plan_trials, settings

ROOT = Path(__file__).resolve().parents[2]
STAGES = {  # the settings of a method, and its largest number of seeds
  "tune_cnn": (10, 2),
  "tune_cnn_more": (10, 2),
  "tune_clean": (8, 2),
  "tune_m": (12, 3),
  "tune_m_cnn": (10, 2),
  "tune_vit": (8, 2),
  "tune_vit_decay": (4, 2),
  "tune_resnet": (8, 2),
}


def commands(stage: str, folder: Path) -> list[list[str]]:
  """The arguments of main.py, a stage's commands one after another."""
  python = folder / "python"
  python.write_text('#!/bin/sh\nprintf "%s\\n" "$@" >&3; echo >&3\n')
  python.chmod(0o755)
  path = f"{folder}:{os.environ['PATH']}"
  with (folder / "said").open("w") as said:
    subprocess.run(
      ["bash", "-c", f"scripts/noisy_cifar10.sh {stage} {folder}/runs 3>&1"],
      cwd=ROOT,
      env={**os.environ, "PATH": path},
      stdout=said,
      check=True,
    )
  found = (folder / "said").read_text().strip().split("\n\n")
  lines = [command.splitlines() for command in found]
  return [arguments for script, *arguments in lines if script == "main.py"]


@pytest.mark.parametrize("stage", STAGES)
def test_methods_have_equal_grids(
  stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  monkeypatch.setattr("forgetsam.data.check_available", lambda *_: None)
  size, seeds = STAGES[stage]
  tuned, checked = set(), set()
  for command in commands(stage, tmp_path):
    flags = dict(f.lstrip("-").split("=", 1) for f in command if "=" in f)
    grid = parse_grid(flags["grid"])
    assert math.prod(map(len, grid.values())) == size
    assert int(flags["seeds"]) <= seeds
    assert flags["workdir"].startswith(f"{tmp_path}/runs/tune/")
    tuned.add((flags["workdir"], flags["variants"]))
    overrides = [f for f in command if f.startswith("--config.")]
    if flags["variants"] not in checked:
      checked.add(flags["variants"])
      trial, *_ = plan_trials(
        str(ROOT / flags["config"]),
        overrides,
        {flags["variants"]: [next(settings(grid))]},
      )
      check_config(trial.config, num_devices=1)
  assert {"tune_cnn": 8, "tune_m": 25}.get(stage, len(tuned)) == len(tuned)


@pytest.mark.parametrize("stage", STAGES)
def test_what_is_tuned_is_reported(stage: str, tmp_path: Path):
  def variants(stage: str, folder: str) -> set[tuple[str, str]]:
    found = set()
    for command in commands(stage, tmp_path):
      flags = dict(f.lstrip("-").split("=", 1) for f in command if "=" in f)
      place = flags[folder].removesuffix("/best.json")
      found |= {(place, v) for v in flags["variants"].split(",")}
    return found

  tuned = variants(stage, "workdir")
  assert variants(stage.replace("tune", "report"), "settings") == tuned
