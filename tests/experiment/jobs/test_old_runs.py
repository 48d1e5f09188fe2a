"""Runs of earlier versions resume to the same end, evaluate and load.

`old_runs/VERSION.tar.gz` holds what that version wrote on a CPU: `command.json`
(the arguments), `whole` (a run to its end) and `cut` (the same run, ended by a
SIGTERM), both without locks and event files.
"""

import json
import tarfile
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import main
from forgetsam import load_run

ARCHIVES = sorted((Path(__file__).parents[1] / "old_runs").glob("*.tar.gz"))
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name[: -len(".tar.gz")])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
  with tarfile.open(request.param) as archive:
    archive.extractall(tmp_path, filter="data")
  return tmp_path


def read(path: Path) -> dict[str, float]:
  return json.loads(path.read_text())


def test_there_is_one():
  assert ARCHIVES


def test_it_resumes_to_the_end_that_it_had(
  old: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
):
  monkeypatch.chdir(ROOT)
  command = json.loads((old / "command.json").read_text())
  place = [f"--config.data.dir={data_dir}", f"--workdir={old / 'cut'}"]
  assert main.run([*command, *place], time.monotonic()) == 0
  then = read(old / "whole" / "summary.json")
  now = read(old / "cut" / "summary.json")
  assert now["config_hash"] == then["config_hash"]
  assert now["steps"] == then["steps"]
  _, before, _ = load_run(old / "whole", "last")
  _, after, _ = load_run(old / "cut", "last")
  # To rounding: the archive may come from a machine with other instructions.
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
    before,
    after,
  )


def test_it_evaluates_to_the_scores_that_it_had(old: Path, data_dir: Path):
  arguments = ["--job=evaluate", f"--workdir={old / 'whole'}"]
  overrides = [f"--config.data.dir={data_dir}"]
  assert main.run([*arguments, *overrides], time.monotonic()) == 0
  summary = read(old / "whole" / "summary.json")
  scores = read(old / "whole" / "evaluation.json")
  for name in ("accuracy", "loss", "top5_accuracy"):
    assert scores[f"last/test/{name}"] == pytest.approx(
      summary[f"test/{name}"], rel=1e-5
    )
