"""Runs of earlier versions resume to the same end, evaluate and load.

`old_runs/VERSION.tar.gz` holds what that version wrote on a CPU: `command.json`
(the arguments), `whole` (a run to its end) and `cut` (the same run, ended by a
SIGTERM, or without its last checkpoints), both without locks and event files.
The first commit of the main job wrote `0.1.0-first`: its configuration lacks
half of the keys that 0.1 has. `0.2` has steps in factors, a perturbation with a
state and an average of the weights. Each release adds one.
"""

import json
import logging
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
  old: Path,
  data_dir: Path,
  monkeypatch: pytest.MonkeyPatch,
  caplog: pytest.LogCaptureFixture,
):
  monkeypatch.chdir(ROOT)
  command = json.loads((old / "command.json").read_text())
  place = [f"--config.data.dir={data_dir}", f"--workdir={old / 'cut'}"]
  without_record = not (old / "cut" / "data.json").exists()  # until 0.1
  with caplog.at_level(logging.WARNING):
    assert main.run([*command, *place], time.monotonic()) == 0
  unknown = "whether its data were those of digits:1.0.0" in caplog.text
  assert unknown == without_record
  assert (old / "cut" / "data.json").exists()
  then = read(old / "whole" / "summary.json")
  now = read(old / "cut" / "summary.json")
  if "these keys" not in caplog.text:  # 0.1 added keys to all hashes
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


def test_it_evaluates_to_the_scores_that_it_had(
  old: Path, data_dir: Path, caplog: pytest.LogCaptureFixture
):
  arguments = ["--job=evaluate", f"--workdir={old / 'whole'}"]
  overrides = [f"--config.data.dir={data_dir}"]
  with caplog.at_level(logging.WARNING):
    assert main.run([*arguments, *overrides], time.monotonic()) == 0
  lacks = "skip_corrupt" not in (old / "whole" / "config.json").read_text()
  assert ("data.skip_corrupt=False" in caplog.text) == lacks
  summary = read(old / "whole" / "summary.json")
  scores = read(old / "whole" / "evaluation.json")
  names = {"accuracy", "loss", "top5_accuracy"}
  for name in names & {key.removeprefix("test/") for key in summary}:
    assert scores[f"last/test/{name}"] == pytest.approx(
      summary[f"test/{name}"], rel=1e-5
    )


@pytest.mark.parametrize("old", ARCHIVES[:1], indirect=True)
@pytest.mark.parametrize("job", ["sharpness", "forgetting"])
def test_it_is_measured(
  job: str, old: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
):
  """Opened, that is: the measures themselves do not read those keys."""
  monkeypatch.setattr(
    f"forgetsam.experiment.jobs.{job}._measurer", lambda *_: lambda *_: {}
  )
  arguments = [
    f"--job={job}",
    f"--workdir={old / 'whole'}",
    f"--config.data.dir={data_dir}",
    # Of keys that its config.json lacks.
    "--config.data.skip_corrupt=false",
    f"--config.{job}.checkpoint=best",
  ]
  assert main.run(arguments, time.monotonic()) == 0
  assert read(old / "whole" / f"{job}.json") == {"best/step": 30}
