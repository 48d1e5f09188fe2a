"""The checks of an accelerator, in smoke form on the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import check_accelerator

ROOT = Path(__file__).parents[2]
LAB = ("clu", "ml_collections", "orbax", "sklearn", "tensorflow", "pytest")
WITHOUT_LAB = (
  f"import runpy, sys; sys.modules |= dict.fromkeys({LAB});"
  "runpy.run_path('scripts/check_accelerator.py', run_name='__main__')"
)


@pytest.mark.slow
def test_the_core_alone_is_enough_and_the_rest_is_skipped_by_name(
  tmp_path: Path,
):
  command = [
    sys.executable,
    "-c",
    WITHOUT_LAB,
    "--smoke",
    f"--output={tmp_path}",
  ]
  done = subprocess.run(
    command, cwd=ROOT, env={**os.environ}, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stdout + done.stderr
  sections = json.loads((tmp_path / "accelerator.json").read_text())["sections"]
  notes = {name: section["note"] for name, section in sections.items()}
  assert notes.pop("contract") == "skipped: needs pytest"
  assert notes.pop("input").startswith("skipped: needs tensorflow")
  assert set(notes.values()) == {None}
  page = (tmp_path / "accelerator.md").read_text()
  for name in sections:
    assert f"## {name}: passes" in page


def test_the_input_pipeline_is_compared_with_steps():
  check = check_accelerator.Check(smoke=True, minutes=1)
  check.images_per_second["net"] = 1000.0
  pipeline, step = check_accelerator.input_pipeline(check)
  cores = 1000.0 / pipeline["per core"]
  assert step["cores that feed it"] == pytest.approx(cores)


def test_failing_tests_are_named(monkeypatch: pytest.MonkeyPatch):
  failing = subprocess.CompletedProcess(
    [], 1, "FAILED tests/a.py::b - why\n1 failed, 2 passed in 1.0s"
  )
  monkeypatch.setattr(subprocess, "run", lambda *_, **__: failing)
  check = check_accelerator.Check(smoke=True, minutes=1)
  found = check_accelerator.run(check, ["contract"])["contract"]
  assert not found["passes"]
  assert "1 failed" in found["rows"][0]["result"]
  assert "tests/a.py::b" in found["rows"][0]["result"]


def test_errors_end_their_own_section_and_nothing_starts_late(
  monkeypatch: pytest.MonkeyPatch,
):
  def broken(check):
    yield {"passes": True}
    raise RuntimeError("out of memory")

  monkeypatch.setitem(check_accelerator.SECTIONS, "steps", broken)
  check = check_accelerator.Check(smoke=True, minutes=0)
  late = check_accelerator.run(check, ["steps"])["steps"]
  assert late == {"passes": True, "note": "skipped: no time left", "rows": []}
  check = check_accelerator.Check(smoke=True, minutes=1)
  found = check_accelerator.run(check, ["steps"])["steps"]
  assert (found["passes"], len(found["rows"])) == (False, 1)
  assert "out of memory" in found["note"]
