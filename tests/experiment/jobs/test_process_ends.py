"""A process that ends reports why, for itself and for its peers."""

import socket
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from tiny_runs import ROOT

from forgetsam.data import DataError
from forgetsam.experiment.config import ConfigError
from forgetsam.experiment.run import CheckpointError
from forgetsam.experiment.run._distributed import _report

pytestmark = pytest.mark.slow

LOST = "another process of this run died"
JAX = jax.errors.JaxRuntimeError


@pytest.mark.parametrize(
  ("error", "code"),
  [
    (ConfigError("--workdir='/data/nccl_bench' is refused"), 2),
    (CheckpointError("/runs/gloo/checkpoints: all are damaged"), 1),
    (DataError("unavailable: gloo/train-0.tfrecord"), 1),
    (FloatingPointError("step 3 of /runs/nccl is not finite"), 1),
    (OSError(28, "No space left on device", "/data/nccl_bench/x"), 1),
    (ValueError("gloo"), 1),
    (JAX("RESOURCE_EXHAUSTED: out of memory"), 1),
  ],
)
def test_an_error_that_only_names_a_collective_is_told_as_it_is(
  error: Exception, code: int, tmp_path: Path
):
  found, text = _report(error, "train", tmp_path)
  assert found == code
  assert LOST not in text
  assert str(error.args[-1]) in text


@pytest.mark.parametrize(
  "text",
  [
    "UNAVAILABLE: connection refused",
    "DEADLINE_EXCEEDED: barrier",
    "INTERNAL: Gloo all-reduce failed",
    "INTERNAL: NCCL operation failed",
  ],
)
def test_an_error_of_jax_tells_of_a_loss(text: str, tmp_path: Path):
  (tmp_path / "checkpoints" / "12").mkdir(parents=True)
  code, told = _report(JAX(text), "train", tmp_path)
  assert code == 1
  assert text in told
  assert LOST in told
  assert told.endswith(" The same command goes on from checkpoint 12.")


@pytest.mark.parametrize(
  ("job", "folders", "end"),
  [
    ("train", ["checkpoints/3", "checkpoints/12"], "from checkpoint 12."),
    ("train", ["checkpoints"], "the same command begins anew."),
    ("train", [], "KeyboardInterrupt."),
    ("evaluate", ["checkpoints/3"], "KeyboardInterrupt."),
  ],
)
def test_only_training_goes_on_from_a_checkpoint(job, folders, end, tmp_path):
  for folder in folders:
    (tmp_path / folder).mkdir(parents=True)
  code, told = _report(KeyboardInterrupt(), job, tmp_path)
  assert code == 1
  assert told.endswith(end)


# One of two processes: python -c PAIR PORT INDEX WORKDIR STATEMENT.
PAIR = """
import os, sys, time
from pathlib import Path
from forgetsam.experiment.config import ProcessFlags
from forgetsam.experiment.run import _distributed

port, index, workdir, statement = sys.argv[1:]
_distributed._SHUTDOWN_SECONDS = 2
flags = ProcessFlags(f"127.0.0.1:{port}", 2, int(index), 60)
with _distributed.joined(flags, "train", Path(workdir)):
  if index == "0":
    exec(statement)
"""


def both(statement: str, workdir: Path) -> list[tuple[int, str]]:
  """Exit codes and stderr of two processes, of which 0 runs a statement."""
  with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    port = str(listener.getsockname()[1])
  processes = [
    subprocess.Popen(
      [sys.executable, "-c", PAIR, port, index, str(workdir), statement],
      cwd=ROOT,
      stderr=subprocess.PIPE,
      text=True,
    )
    for index in ("0", "1")
  ]
  try:
    said = [process.communicate(timeout=100)[1] for process in processes]
  finally:
    for process in processes:
      process.kill()
  codes = [process.returncode for process in processes]
  return list(zip(codes, said, strict=True))


def test_process_1_waits_for_what_process_0_still_closes(tmp_path: Path):
  found = both("time.sleep(5)", tmp_path)
  assert [code for code, _ in found] == [0, 0], found


def test_an_abort_is_not_blamed_on_the_others(tmp_path: Path):
  (tmp_path / "checkpoints" / "7").mkdir(parents=True)
  (code, said), (code_1, said_1) = both("time.sleep(1); os.abort()", tmp_path)
  assert code == code_1 == 1
  assert "Process 0 of 2 was aborted; what JAX or the system said" in said
  assert "If it names a lost task" in said
  # Process 1 waits for process 0, and does not forever.
  assert "Process 1 of 2 was " in said_1
  assert LOST in said_1
  for text in (said, said_1):
    assert text.endswith("The same command goes on from checkpoint 7.\n")
