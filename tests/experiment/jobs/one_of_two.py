"""One of two processes that do what the tests ask: python one_of_two.py PLAN I.

What each then knows goes into a JSON file of its own, and arrays beside it.
"""

import errno
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from forgetsam.cli import JOBS
from forgetsam.experiment.build import build_experiment
from forgetsam.experiment.config import (
  ConfigError,
  ProcessFlags,
  parse_command_line,
)
from forgetsam.experiment.jobs.evaluate import evaluate_run
from forgetsam.experiment.jobs.train import train
from forgetsam.experiment.run import (
  Checkpoints,
  PreemptedError,
  Reporter,
  joined,
)

NUM_PROCESSES = 2


def end_after(done: int) -> Any:
  """Has SIGTERM come once a run's `done` steps are read; gives the original."""
  advance = Reporter.advance

  def ending(self: Reporter, now: int) -> None:
    advance(self, now)
    if now == done:
      os.kill(os.getpid(), signal.SIGTERM)

  Reporter.advance = ending  # type: ignore[method-assign]
  return advance


def fail(*_: Any) -> None:
  """Stands for what saves, on a disk that is full."""
  raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def do(action: str, arguments: list[str], index: int, folder: Path) -> Any:
  """Carries out one action of the plan; its result is to be JSON."""
  command = parse_command_line(arguments, JOBS)
  assert command.config is not None
  if action == "evaluate":
    return evaluate_run(command.config, command.workdir)
  if action == "batches":
    batches = build_experiment(command.config).train_batches(0, 3)
    for step, batch in enumerate(batches):
      for name, array in batch.items():
        mine = {s.index[0].start: s.data for s in array.addressable_shards}
        rows = np.concatenate([mine[start] for start in sorted(mine)])
        np.save(folder / f"{name}_{step}_{index}.npy", rows)
    return None
  advance, save = Reporter.advance, Checkpoints._save
  if action == "train, SIGTERM to 1" and index == 1:
    end_after(6)
  if action == "train, full disk in 0" and index == 0:
    Checkpoints._save = fail  # type: ignore[method-assign]
  try:
    return train(command.config, command.workdir)
  except (ConfigError, OSError, PreemptedError) as error:
    return f"{type(error).__name__}: {error}"
  finally:
    Reporter.advance = advance  # type: ignore[method-assign]
    Checkpoints._save = save  # type: ignore[method-assign]


def main(plan_file: str, index: int) -> None:
  plan = json.loads(Path(plan_file).read_text())
  folder = Path(plan_file).parent
  flags = ProcessFlags(plan["coordinator"], NUM_PROCESSES, index, 60)
  with joined(flags, "train", folder):
    results = {
      name: do(action, arguments, index, folder)
      for name, (action, arguments) in plan["actions"].items()
    }
    (folder / f"results_{index}.json").write_text(json.dumps(results))


if __name__ == "__main__":
  main(sys.argv[1], int(sys.argv[2]))
