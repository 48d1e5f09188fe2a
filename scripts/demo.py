"""Trains on digits, two fifths of which have a wrong label: `make demo`.

    python -m scripts.demo --workdir=runs/demo

One network is trained in four ways: with plain gradients, once without weight
decay, with SAM and with OBF. Along the way it is scored on the test images,
whose labels are right, and on the training images whose label is wrong: how
many of those labels has it memorised? WORKDIR gets `curves.csv`, `curves.png`
and `results.md`.

With `--seeds=8` all of it is repeated. A seed draws the initial weights, the
order of the batches, the validation split and the wrong labels, the same for
all methods; `results.md` then has paired differences.
"""

import argparse
import functools
import gc
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

# Heavy libraries are imported where they are used: the first words come first.
if TYPE_CHECKING:
  from ml_collections import config_dict

  from forgetsam.experiment.sweep import Runner
  from scripts.demo_report import Curves, Point

FILE = "configs/noisy_digits.py"


class Method(NamedTuple):
  """A variant of the recipe, and what it costs in units of a plain run."""

  variant: str
  overrides: tuple[str, ...]
  compilation: float
  training: float


_NO_DECAY = ("--config.optimizer.weight_decay=0",)
METHODS = {
  "plain, no decay": Method("plain", _NO_DECAY, 3, 1),
  "plain": Method("plain", (), 0, 1),  # the same program
  "sam": Method("sam", (), 4, 4),
  "obf": Method("obf", (), 4, 4),
}


def main(argv: Sequence[str]) -> None:
  """Trains, draws, and says what to try next."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--workdir", required=True)
  # Those below chose the settings, on validation images.
  parser.add_argument("--first_seed", type=int, default=10)
  parser.add_argument("--seeds", type=int, default=1)
  flags = parser.parse_args(argv)
  # Imports make a million objects and no garbage: a second is saved.
  gc.set_threshold(200_000, 10, 10)
  print(
    "Four ways to train on handwritten digits, 40 % of which have a wrong\n"
    "label: who classifies new digits well, and who memorises wrong labels?\n"
  )
  with _timed("importing JAX and TensorFlow"):
    import jax
    import tensorflow_datasets  # noqa: F401

    from forgetsam.experiment.config import (
      ConfigError,
      check_config,
      path_of_flag,
    )
    from forgetsam.experiment.run import check_folder, keep_compiled_programs
    from forgetsam.experiment.sweep import Runner
    from scripts import demo_report
  seeds = range(flags.first_seed, flags.first_seed + flags.seeds)
  try:
    workdir = path_of_flag("--workdir", flags.workdir)
    check_folder(workdir)
    for name in METHODS:
      check_config(config_of(name, seeds[0]), jax.local_device_count())
    keep_compiled_programs()
  except ConfigError as error:
    raise SystemExit(str(error)) from error
  runner = Runner()
  with _timed("building the set of digits"):
    runner.images(config_of("plain", seeds[0]))
  curves = train(runner, seeds)
  table = demo_report.results(curves)
  print(
    f"\n{table}\n"
    "stopped early: test accuracy at the best epoch on validation images\n"
    "memorised: how many of the wrong labels the network predicts\n"
    "docs/demo.md has the same over eight seeds, with intervals.\n"
  )
  (workdir / "results.md").write_text(table)
  demo_report.write_curves(workdir / "curves.csv", curves, seeds)
  demo_report.draw(workdir / "curves.png", curves)
  print(f"The training curves are in {workdir / 'curves.png'}")
  print(_next_commands())


def config_of(name: str, seed: int) -> "config_dict.ConfigDict":
  """The configuration of a method's run."""
  from forgetsam.experiment.config import apply_overrides, load_config_file

  method = METHODS[name]
  config = load_config_file(f"{FILE}:{method.variant}")
  seeds = (f"--config.seed={seed}", f"--config.data.split_seed={seed}")
  return apply_overrides(config, (*method.overrides, *seeds))


def train(runner: "Runner", seeds: Sequence[int]) -> "Curves":
  """Runs every method with every seed."""
  curves: Curves = {name: [] for name in METHODS}
  progress = _Progress(len(seeds))
  for seed in seeds:
    score = scorer(config_of("plain", seed), runner)
    for name, runs in curves.items():
      config = config_of(name, seed)
      progress.start(name, config.epochs)
      runs.append([])
      note = functools.partial(_note, runs[-1], score, progress)
      outcome = runner.run(config, (), note)
      if outcome.diverged_at is not None:
        raise SystemExit(f"{name} diverged at step {outcome.diverged_at}")
  return curves


def _note(
  run: "list[Point]", score: Any, progress: "_Progress", epoch: int, state: Any
) -> None:
  run.append(score(epoch, state))
  progress.epoch(run[-1])


def scorer(
  config: "config_dict.ConfigDict", runner: "Runner"
) -> Callable[[int, Any], "Point"]:
  """Builds `(epoch, state) -> Point` for the data of a configuration."""
  import numpy as np

  from forgetsam import data
  from forgetsam.experiment.build import (
    build_data,
    build_experiment,
    build_sources,
  )
  from forgetsam.experiment.evaluation import evaluate
  from scripts.demo_report import Point

  images = runner.images(config)
  right = config.copy_and_resolve_references()
  right.data.label_noise = 0.0
  is_wrong = images.train.labels != build_data(right).train.labels
  eval_step = build_experiment(config, build_sources(config, images)).eval_step
  assert images.validation is not None
  wrong = images.train.take(np.flatnonzero(is_wrong))
  splits = images.validation, images.test, wrong
  normal = {"mean": config.data.mean, "std": config.data.std}
  batches = [
    list(data.eval_batches(split, batch_size=512, **normal)) for split in splits
  ]

  def score(epoch: int, state: Any) -> Point:
    validation, test, mislabelled = (
      evaluate(eval_step, state.params, state.model_state, several)
      for several in batches
    )
    held_out, memorised = validation["accuracy"], mislabelled["accuracy"]
    return Point(epoch, held_out, test["accuracy"], test["loss"], memorised)

  return score


@contextmanager
def _timed(text: str) -> Iterator[None]:
  print(f"{text:<32}", end="", flush=True)
  began = time.perf_counter()
  yield
  print(f"{time.perf_counter() - began:6.1f} s", flush=True)


class _Progress:
  """A few lines for each run, with the time that is left for all of them."""

  def __init__(self, num_seeds: int):
    methods = METHODS.values()
    self._total = sum(m.compilation + num_seeds * m.training for m in methods)
    self._done = 0.0  # of the total
    self._seen: set[str] = set()
    self._began = time.perf_counter()
    print(
      f"\n{'method':<17}{'epoch':>9}{'test accuracy':>16}{'memorised':>12}"
      f"{'time left':>12}"
    )

  def start(self, name: str, epochs: int) -> None:
    """Says that a run starts, which may compile it."""
    self._name, self._epochs = name, epochs
    self._started = time.perf_counter()
    self._compiles = name not in self._seen and METHODS[name].compilation > 0
    self._seen.add(name)
    if self._compiles:
      print(f"{name:<17}compiling", end="", flush=True)

  def epoch(self, point: "Point") -> None:
    """Prints the quarters of a run."""
    name = self._name
    if point.epoch == 1 and self._compiles:
      print(f"{time.perf_counter() - self._started:>14.1f} s", flush=True)
      self._done += METHODS[name].compilation
    if point.epoch == 0 or point.epoch % (self._epochs // 4):
      return
    self._done += METHODS[name].training / 4
    spent = time.perf_counter() - self._began
    left = spent * max(0.0, self._total / self._done - 1)
    print(
      f"{name:<17}{point.epoch:>9}{point.test_accuracy:>16.3f}"
      f"{point.memorised:>12.0%}{left:>10.0f} s",
      flush=True,
    )


def _next_commands() -> str:
  python = sys.executable
  if Path(python).is_relative_to(Path.cwd()):
    python = os.path.relpath(python)
  elif shutil.which("python") == python:
    python = "python"
  return f"""
Next, for example:
  # one of these runs with checkpoints and logs; interrupt it, and it resumes
  {python} main.py --config={FILE}:obf \\
    --workdir=runs/digits_obf
  # what perturbing that network's weights makes it forget (a minute)
  {python} main.py --job=forgetting --workdir=runs/digits_obf
  # all methods over 8 seeds, with paired differences
  {python} main.py --job=sweep --config={FILE} \\
    --variants=plain,sam,obf --first_seed=10 --seeds=8 \\
    --config.data.split_seed=10 --workdir=runs/digits_seeds"""


if __name__ == "__main__":
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # or it announces itself
  try:
    main(sys.argv[1:])
  except KeyboardInterrupt:
    print(
      "\nInterrupted. The demo writes its files at its end: start it again.",
      file=sys.stderr,
    )
    sys.exit(130)
