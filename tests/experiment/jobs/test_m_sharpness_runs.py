"""Runs that take their micro-batches together, and go on as they began."""

import json
import logging
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from tiny_runs import ROOT, tiny

import main
from forgetsam import load_run
from forgetsam.experiment.run import Loop

pytestmark = pytest.mark.slow
AUTO = (
  "--config.m_sharpness=auto",
  "--config.micro_batch_size=2",
  "--config.model.hidden=(64,)",
)


class Killed(BaseException):
  """Stands for a kill: no handler of the program expects it."""


def _run(*arguments: str) -> int:
  return main.run(list(arguments), time.monotonic())


def _read(path: Path) -> dict[str, Any]:
  return json.loads(path.read_text())


def _killed_at_step_5(patch: pytest.MonkeyPatch, arguments: list[str]) -> None:
  settle = Loop._settle

  def fall(self: Any, pending: Any, state: Any) -> None:
    if pending.step == 5:
      raise Killed
    settle(self, pending, state)

  with patch.context() as falling:
    falling.setattr(Loop, "_settle", fall)
    with pytest.raises(Killed):
      _run(*arguments)


def test_a_run_in_factors_goes_on_to_the_bit(
  data_dir: Path,
  tmp_path: Path,
  monkeypatch: pytest.MonkeyPatch,
  caplog: pytest.LogCaptureFixture,
):
  caplog.set_level(logging.INFO)
  every = "--config.checkpoint.every_steps=2"
  assert _run(*tiny(tmp_path / "whole", data_dir, every, *AUTO)) == 0
  assert "m_sharpness: factored" in caplog.text
  arguments = tiny(tmp_path / "cut", data_dir, every, *AUTO)
  _killed_at_step_5(monkeypatch, arguments)
  assert _run(*arguments) == 0
  whole, cut = (
    _read(tmp_path / run / "summary.json") for run in ("whole", "cut")
  )
  assert cut["params_sha256"] == whole["params_sha256"]
  assert cut["config_hash"] == whole["config_hash"]


@pytest.mark.parametrize(
  ("now", "factored"),
  [
    ("--config.mesh.fsdp=2", False),
    ("--config.m_sharpness=loop", False),
    ("--config.m_sharpness_chunk=2", True),
  ],
)
def test_a_run_in_factors_goes_on_in_other_ways(
  data_dir: Path,
  tmp_path: Path,
  monkeypatch: pytest.MonkeyPatch,
  caplog: pytest.LogCaptureFixture,
  now: str,
  factored: bool,
):
  """Parameters that are divided over devices are never taken in factors."""
  caplog.set_level(logging.INFO)
  every = "--config.checkpoint.every_steps=2"
  assert _run(*tiny(tmp_path / "whole", data_dir, every, *AUTO)) == 0
  arguments = tiny(tmp_path / "cut", data_dir, every, *AUTO)
  _killed_at_step_5(monkeypatch, arguments)
  caplog.clear()
  assert _run(*arguments, now) == 0
  assert ("m_sharpness: factored" in caplog.text) == factored
  before, after = (
    load_run(tmp_path / run, "last")[1] for run in ("whole", "cut")
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
    before,
    after,
  )


@pytest.mark.parametrize("how", ["auto", "factored"])
def test_jobs_take_a_run_by_the_flags_that_it_was_started_with(
  data_dir: Path, tmp_path: Path, how: str
):
  given = (
    *AUTO[1:],
    f"--config.m_sharpness={how}",
    "--config.forgetting.per_class=10",
  )
  arguments = tiny(tmp_path / "run", data_dir, *given)
  assert _run(*arguments) == 0
  before = _read(tmp_path / "run" / "config.json")
  for job in ("evaluate", "forgetting", "train"):
    assert _run(*arguments, f"--job={job}") == 0
  assert _read(tmp_path / "run" / "config.json") == before


def test_a_sweep_keeps_and_scores_runs_in_factors(
  data_dir: Path, tmp_path: Path
):
  given = (*AUTO[1:], "--config.m_sharpness=factored")
  sets = "--config.evaluation.sets=digits"
  sweep = ("--job=sweep", "--variants=sam", "--seeds=1", "--keep_runs", sets)
  _, *arguments = tiny(tmp_path, data_dir, *given, *sweep)
  assert _run(f"--config={ROOT}/configs/digits.py", *arguments) == 0
  (run,) = (tmp_path / "runs").rglob("evaluation.json")
  assert "last/digits/accuracy" in _read(run)


@pytest.mark.parametrize(
  ("variant", "given", "reason"),
  [
    ("asam", (), "entry by entry"),
    # A rule with options is traced as a component of the user's own.
    (
      "obf",
      ("--config.combine.name=weighted", "--config.combine.options.gamma=0.8"),
      "at several points",
    ),
  ],
)
def test_what_cannot_be_factored_is_refused_before_training(
  data_dir: Path,
  tmp_path: Path,
  capsys: pytest.CaptureFixture[str],
  variant: str,
  given: tuple[str, ...],
  reason: str,
):
  factored = "--config.m_sharpness=factored"
  arguments = tiny(
    tmp_path / "run", data_dir, factored, *given, variant=variant
  )
  assert _run(*arguments) == 2
  said = capsys.readouterr().err
  assert "config.m_sharpness='factored' is refused" in said
  assert reason in said
  assert not (tmp_path / "run" / "config.json").exists()
