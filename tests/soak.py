"""Kills a run again and again, and compares its end with an undisturbed one's.

    python tests/soak.py --kills=20 --seed=0 [--skips]

SIGKILL comes at random moments: before the first step, between steps, and while
a checkpoint is written. In the end, parameters and summary must be those of a
run that was never killed, to the bit. With --skips, some batches are poisoned
with nan and passed over on the way.
"""

import argparse
import collections
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

PLACES = ("start", "steps", "save")
_TESTS = Path(__file__).resolve().parent
_STEP = re.compile(r"step +\d+/\d+  loss (?!.* on )")
_POISONED = "2,3,50,51,52,100,149"


class Run(NamedTuple):
  """A command, and what the processes that it starts inherit."""

  command: list[str]
  environment: dict[str, str]
  folder: Path

  def start(self) -> "Process":
    """Starts or resumes it."""
    return Process(self)

  def summary(self) -> dict[str, Any]:
    """Its summary without what the clock decides."""
    found = json.loads((self.folder / "summary.json").read_text())
    return {k: v for k, v in found.items() if "seconds" not in k}

  def unfinished(self) -> list[str]:
    """The checkpoints that are being written, or never were whole."""
    folder = self.folder / "checkpoints"
    try:
      names = os.listdir(folder)
    except FileNotFoundError:
      return []
    return [name for name in names if not name.isdecimal()]


class Process:
  """A started run, and the lines that it has written so far."""

  def __init__(self, run: Run):
    self.run = run
    self.lines: list[str] = []
    self._process = subprocess.Popen(
      run.command,
      cwd=_TESTS.parent,
      env=run.environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    self._reader = threading.Thread(target=self._read, daemon=True)
    self._reader.start()

  def _read(self) -> None:
    assert self._process.stdout is not None
    with self._process.stdout as lines:
      self.lines.extend(lines)

  @property
  def steps(self) -> int:
    """Steps that it has logged."""
    return sum(bool(_STEP.search(line)) for line in list(self.lines))

  def alive(self) -> Iterator[None]:
    """Yields every millisecond, until the run ends."""
    while self._process.poll() is None:
      yield
      time.sleep(0.001)

  def end(self) -> int:
    """Waits for the run's own end."""
    code = self._process.wait(timeout=600)
    self._reader.join()
    return code

  def kill(self) -> None:
    """Ends it at once."""
    self._process.kill()
    self.end()


def make_run(
  folder: Path, data_dir: Path, skips: bool = False, epochs: int = 30
) -> Run:
  """A run of five steps an epoch that saves every fifth.

  Its processes share a cache: the environment's, where it names one.
  """
  sys.path.insert(0, str(_TESTS / "experiment"))
  from tiny_runs import tiny

  cache = {
    "JAX_COMPILATION_CACHE_DIR": str(data_dir / "compiled"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
  }
  program = (
    _TESTS / "experiment" / "jobs" / "poisoned.py" if skips else Path("main.py")
  )
  options = tiny(
    folder,
    data_dir,
    f"--config.epochs={epochs}",
    "--config.micro_batch_size=32",
    "--config.checkpoint.every_steps=5",
    "--config.evaluation.every_epochs=4",
    "--config.log.every_steps=1",
    f"--config.on_nonfinite={'skip' if skips else 'stop'}",
  )
  command = [sys.executable, str(program), *options]
  return Run(command, cache | os.environ | {"POISONED": _POISONED}, folder)


def undisturbed(run: Run) -> float:
  """Runs to the end without a kill; returns the seconds before it trained."""
  process = run.start()
  code = process.end()
  if code:
    raise SystemExit(f"the undisturbed run failed: {''.join(process.lines)}")
  summary = json.loads((run.folder / "summary.json").read_text())
  return float(summary["startup_seconds"])


def kill_once(
  run: Run, place: str, chance: random.Random, startup: float
) -> str | None:
  """Starts or resumes the run, and kills it at a random moment.

  Args:
    run: what to start.
    place: where the kill is meant to fall, one of `PLACES`.
    chance: what the moment is drawn from.
    startup: seconds that the run takes before it trains.

  Returns:
    The place where it fell; None where the run had ended before.
  """
  process = run.start()
  before = set(run.unfinished())  # left by earlier kills
  # The undisturbed run compiled, which the others need not.
  until = time.monotonic() + startup * chance.uniform(0.05, 0.4)
  steps, saves = chance.randint(1, 20), chance.randint(1, 4)
  seen: set[str] = set()
  # Not only as soon as the folder appears: also further into the save.
  delay = chance.uniform(0, 0.02)
  for _ in process.alive():
    if place == "start" and time.monotonic() > until:
      break
    new = set(run.unfinished()) - before
    if place == "steps" and process.steps >= steps and not new:
      break
    if place == "save":
      seen |= new
      if new and len(seen) >= saves and process.steps:
        time.sleep(delay)
        break
  else:
    if process.end():
      raise SystemExit(f"the resumed run failed: {''.join(process.lines)}")
    return None
  process.kill()
  if not process.steps:
    return "start"
  return "save" if set(run.unfinished()) - before else "steps"


def soak(
  kills: int, seed: int, work: Path, skips: bool, epochs: int = 30
) -> dict[str, int]:
  """Kills runs `kills` times; each of them must end as an undisturbed one.

  Returns:
    How many kills fell into each place.
  """
  chance = random.Random(seed)
  reference = make_run(work / "reference", work / "tfds", skips, epochs)
  startup = undisturbed(reference)
  expected = reference.summary()
  counts: collections.Counter[str] = collections.Counter()
  number, run = 0, make_run(work / "run0", work / "tfds", skips, epochs)
  while (done := counts.total()) < kills:
    place = kill_once(run, PLACES[done % len(PLACES)], chance, startup)
    if place is None:
      _compare(run, expected)
      number += 1
      run = make_run(work / f"run{number}", work / "tfds", skips, epochs)
      continue
    counts[place] += 1
    saved = sorted(p.name for p in run.folder.glob("checkpoints/*"))
    print(f"kill {done + 1}: {place}; checkpoints {saved}", flush=True)
  undisturbed(run)
  _compare(run, expected)
  print(
    f"{kills} kills, {number + 1} runs, all equal to the undisturbed one: "
    + ", ".join(f"{counts[place]} in {place}" for place in PLACES)
  )
  return dict(counts)


def _compare(run: Run, expected: dict[str, Any]) -> None:
  found = run.summary()
  if found != expected:
    raise SystemExit(f"{run.folder} ended otherwise: {found}, not {expected}")


if __name__ == "__main__":
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--kills", type=int, default=20)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--skips", action="store_true")
  chosen = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    soak(chosen.kills, chosen.seed, Path(folder), chosen.skips)
