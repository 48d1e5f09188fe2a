"""A run killed with SIGKILL at a random moment ends as if nothing happened."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tiny_runs import ROOT, tiny


class Reference(NamedTuple):
  summary: dict[str, Any]
  environment: dict[str, str]


def arguments(workdir: Path, data_dir: Path) -> list[str]:
  # Saving every third step, the run is nearly always inside a save.
  return tiny(
    workdir,
    data_dir,
    "--config.epochs=30",
    "--config.micro_batch_size=32",
    "--config.checkpoint.every_steps=3",
    "--config.evaluation.every_epochs=4",
    "--config.log.every_steps=1",
  )


def start(command: list[str], environment: dict[str, str]) -> subprocess.Popen:
  return subprocess.Popen(
    [sys.executable, "main.py", *command],
    cwd=ROOT,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


@pytest.fixture(scope="module")
def reference(
  tmp_path_factory: pytest.TempPathFactory, data_dir: Path
) -> Reference:
  """An undisturbed run in a process of its own."""
  folder = tmp_path_factory.mktemp("reference")
  cache = {
    "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
  }
  environment = {**os.environ, **cache}
  process = start(arguments(folder / "run", data_dir), environment)
  said, _ = process.communicate(timeout=300)
  assert process.returncode == 0, said
  summary = json.loads((folder / "run" / "summary.json").read_text())
  return Reference(summary, environment)


def kill_at_random(process: subprocess.Popen, share: float, span: float) -> int:
  """Kills the process once `share` of its training has passed, roughly.

  Returns the number of log lines, one a step, that it had written.
  """
  assert process.stdout is not None
  lines = 0
  while "train/loss" not in (line := process.stdout.readline()):
    assert line, "the run ended before its first step"
  try:
    said, _ = process.communicate(timeout=share * span)
  except subprocess.TimeoutExpired:
    process.kill()
    said, _ = process.communicate()
  lines = 1 + said.count("train/loss")
  return lines


@pytest.mark.parametrize(
  "seed",
  [
    pytest.param(0, marks=pytest.mark.slow),
    *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 5)),
  ],
)
def test_a_killed_run_ends_with_the_same_parameters(
  seed: int, reference: Reference, tmp_path: Path, data_dir: Path
):
  expected = reference.summary
  command = arguments(tmp_path / "run", data_dir)
  share = random.Random(seed).random()
  span = expected["wall_seconds"] - expected["startup_seconds"]
  process = start(command, reference.environment)
  lines = kill_at_random(process, share, span)
  saved = sorted(p.name for p in (tmp_path / "run/checkpoints").iterdir())
  print(f"seed {seed}: killed after {lines} steps, with checkpoints {saved}")
  process = start(command, reference.environment)
  said, _ = process.communicate(timeout=300)
  assert process.returncode == 0, said
  summary = json.loads((tmp_path / "run" / "summary.json").read_text())
  del summary["wall_seconds"], summary["startup_seconds"]
  assert summary == {key: expected[key] for key in summary}
