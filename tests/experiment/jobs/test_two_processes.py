"""Two real processes are one run: what they train, save, restore and refuse.

They do all of it in one session, because to start is most of the work.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from one_of_two import NUM_PROCESSES, end_after
from tiny_runs import ROOT, tiny

from forgetsam import data
from forgetsam.experiment.run import Checkpoints, Reporter, WorkdirLock
from main import run as run_main

pytestmark = pytest.mark.slow

# Adam would turn rounding into signs where a gradient is zero.
SGD = (
  "--config.optimizer.name=sgdw",
  "--config.optimizer.learning_rate=0.1",
  "--config.optimizer.momentum=0.9",
  "--config.evaluation.every_epochs=2",
)
# Cannot be split evenly: one process has 180 of its examples, the other 179.
SET = "digits@test[:359]"
SHARED_OUT = "--config.optimizer.shard_state=true"
DIVIDED = "--config.mesh.fsdp=8"
# The processes also agree on a probe, which each computes whole.
PROBE = (
  "--config.probe.perturbations=sam",
  "--config.probe.every_steps=4",
  "--config.forgetting.per_class=4",
  "--config.forgetting.micro_batch_size=16",
)
STREAM = ("--config.data.stream=true", "--config.data.image_size=8")


class Outcome(NamedTuple):
  folder: Path
  results: list[dict[str, Any]]  # of each process


def free_port() -> int:
  with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    return listener.getsockname()[1]


def environment(folder: Path) -> dict[str, str]:
  """Four devices for each process, and what one compiled, for both."""
  flags = os.environ.get("XLA_FLAGS", "")
  return {
    **os.environ,
    "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count=4",
    "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
  }


def interrupted(arguments: list[str]) -> None:
  """One process's run that is asked to end after seven of its ten steps."""
  advance = end_after(6)
  try:
    assert run_main(arguments, started=0.0) == 0
  finally:
    Reporter.advance = advance  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def outcome(
  tmp_path_factory: pytest.TempPathFactory, data_dir: Path
) -> Outcome:
  folder = tmp_path_factory.mktemp("two")

  def sgd(name: str, *extra: str) -> list[str]:
    return tiny(folder / name, data_dir, *SGD, *extra)

  data.load("digits", data_dir=data_dir)
  interrupted(sgd("begun by one"))
  (folder / "locked").mkdir()
  plan = {
    "coordinator": f"127.0.0.1:{free_port()}",
    "actions": {
      "first": ("train", sgd("first")),
      "again": ("train", sgd("again")),
      "scores": ("evaluate", sgd("first", f"--config.evaluation.sets={SET}")),
      "ended": ("train, SIGTERM to 1", sgd("ended", SHARED_OUT)),
      "gone on": ("train", sgd("begun by one")),
      "locked": ("train", sgd("locked")),
      "full": ("train, full disk in 0", sgd("full", *PROBE)),
      "divided": ("train", sgd("divided", DIVIDED)),
      "divided scores": ("evaluate", sgd("divided", DIVIDED)),
      "streamed": ("batches", sgd("streamed", *STREAM)),
    },
  }
  (folder / "plan.json").write_text(json.dumps(plan))
  script = str(Path(__file__).with_name("one_of_two.py"))
  with WorkdirLock(folder / "locked"):
    processes = [
      subprocess.Popen(
        [sys.executable, script, str(folder / "plan.json"), str(index)],
        cwd=ROOT,
        env=environment(folder) | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
      )
      for index in range(NUM_PROCESSES)
    ]
    try:
      said = [process.communicate(timeout=300)[0] for process in processes]
    finally:
      for process in processes:
        process.kill()
  assert [p.returncode for p in processes] == [0, 0], "\n\n".join(said)
  assert not said[1], "process 1 is to be silent"
  results = [
    json.loads((folder / f"results_{index}.json").read_text())
    for index in range(NUM_PROCESSES)
  ]
  return Outcome(folder, results)


@pytest.fixture(scope="module")
def alone(
  tmp_path_factory: pytest.TempPathFactory, data_dir: Path
) -> list[Path]:
  """The same run by one process, of eight devices and of one."""
  folder = tmp_path_factory.mktemp("alone")
  folders = [folder / "8", folder / "1"]
  for workdir, devices in zip(folders, (8, 1), strict=True):
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(jax, "local_device_count", lambda n=devices: n)
      assert run_main(tiny(workdir, data_dir, *SGD), started=0.0) == 0
  return folders


def parameters(workdir: Path) -> list[np.ndarray]:
  with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
    last = checkpoints.variables(checkpoints.steps()[::-1])
  assert last.step == 10
  return [np.asarray(leaf) for leaf in jax.tree.leaves(last.params)]


def assert_close(left: Path, right: Path) -> None:
  for a, b in zip(parameters(left), parameters(right), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_processes_agree_in_every_bit_also_on_repetition(outcome: Outcome):
  hashes = {
    results[name]["params_sha256"]
    for results in outcome.results
    for name in ("first", "again")
  }
  assert len(hashes) == 1
  # Each evaluated its half, and knows the scores of the whole.
  one, other = (results["first"] for results in outcome.results)
  scores = [key for key in one if "/" in key]
  assert "test/accuracy" in scores
  assert {key: one[key] for key in scores} == {
    key: other[key] for key in scores
  }


def test_one_process_gets_the_same_parameters(
  outcome: Outcome, alone: list[Path]
):
  for workdir in alone:
    assert_close(outcome.folder / "first", workdir)


def test_unequal_parts_of_a_set_are_scored_whole(
  outcome: Outcome, data_dir: Path, alone: list[Path]
):
  arguments = tiny(alone[0], data_dir, *SGD, f"--config.evaluation.sets={SET}")
  assert run_main([*arguments, "--job=evaluate"], started=0.0) == 0
  expected = json.loads((alone[0] / "evaluation.json").read_text())
  assert expected[f"last/{SET}/count"] == 359
  written = json.loads((outcome.folder / "first/evaluation.json").read_text())
  for scores in [written, *(r["scores"] for r in outcome.results)]:
    assert scores == pytest.approx(expected, rel=1e-4)


def test_files_are_written_once(outcome: Outcome):
  events = list((outcome.folder / "first").glob("events.*"))
  assert len(events) == 1
  summary = json.loads((outcome.folder / "first/summary.json").read_text())
  assert summary == outcome.results[0]["first"]


def test_sigterm_in_one_saves_and_ends_both_at_the_same_step(
  outcome: Outcome, alone: list[Path], data_dir: Path
):
  said = {results["ended"] for results in outcome.results}
  assert len(said) == 1
  text = said.pop()
  assert text.startswith("PreemptedError: Asked to end: step ")
  step = int(text.split("step ")[1].split()[0])
  # A step or two beyond the one at which the signal came.
  assert 7 <= step <= 9
  workdir = outcome.folder / "ended"
  assert not (workdir / "summary.json").exists()
  assert (workdir / "checkpoints" / str(step)).is_dir()
  # One process of eight devices ends what two of four each began: the momentum
  # of which each had a part was saved whole.
  arguments = tiny(workdir, data_dir, *SGD, SHARED_OUT)
  assert run_main(arguments, started=0.0) == 0
  assert_close(workdir, alone[0])


def test_two_end_what_one_began(outcome: Outcome, alone: list[Path]):
  assert all(isinstance(r["gone on"], dict) for r in outcome.results)
  assert_close(outcome.folder / "begun by one", alone[0])


def test_parameters_may_be_divided_over_processes(
  outcome: Outcome, alone: list[Path]
):
  hashes = {results["divided"]["params_sha256"] for results in outcome.results}
  assert len(hashes) == 1
  assert_close(outcome.folder / "divided", alone[1])
  for results in outcome.results:
    trained, scores = results["divided"], results["divided scores"]
    accuracy = trained["test/accuracy"]
    assert scores["last/test/accuracy"] == pytest.approx(accuracy)


def test_a_folder_that_is_in_use_is_refused_to_both(outcome: Outcome):
  for results in outcome.results:
    assert results["locked"].startswith("ConfigError: --workdir=")
    assert "no other run uses" in results["locked"]


def test_an_error_of_process_0_is_raised_in_both(outcome: Outcome):
  said = [results["full"] for results in outcome.results]
  assert said == ["OSError: [Errno 28] No space left on device"] * 2


def test_streamed_batches_are_those_of_one_process(
  outcome: Outcome, data_dir: Path
):
  from forgetsam.experiment.build import build_experiment
  from forgetsam.experiment.config import parse_command_line

  arguments = tiny(outcome.folder / "streamed", data_dir, *SGD, *STREAM)
  config = parse_command_line(arguments, ["train"]).config
  assert config is not None
  batches = build_experiment(config).train_batches(0, 3)
  for step, batch in enumerate(batches):
    for name, array in batch.items():
      parts = [
        np.load(outcome.folder / f"{name}_{step}_{index}.npy")
        for index in range(NUM_PROCESSES)
      ]
      assert [len(part) for part in parts] == [32, 32]
      np.testing.assert_array_equal(np.concatenate(parts), np.asarray(array))
