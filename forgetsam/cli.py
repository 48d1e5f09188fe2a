"""The command line of `forgetsam` and `main.py`: runs one of the jobs.

--config=FILE:VARIANT --workdir=DIR [--job=JOB] [--config.KEY=VALUE ...]

Every key of the configuration can be overridden: --config.perturbation.rho=0.1
"""

import os
import sys
import time
from collections.abc import Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # or it announces itself

from forgetsam.experiment.config import (
  Command,
  ConfigError,
  PlotFlags,
  apply_overrides,
  help_page,
  parse_command_line,
  split_config,
)
from forgetsam.experiment.run import (
  PreemptedError,
  check_devices,
  joined,
  keep_compiled_programs,
  load_config,
  on_main,
  report_failure,
  set_up_logging,
  with_recorded_modules,
  with_recorded_place,
)

JOBS = {
  "train": "Train, or go on with a run that stopped",
  "evaluate": "Score the checkpoints of a run",
  "sharpness": "Measure the curvature and sharpness of a run's loss",
  "forgetting": "Measure what perturbations make a run's network forget",
  "sweep": "Compare variants over seeds, or choose their settings",
  "study": "Train and measure the networks of a file's STUDY",
  "plot": "Draw the learning curves of runs, side by side",
}


def main(
  argv: Sequence[str] | None = None, started: float | None = None
) -> int:
  """Sets up the program, and runs the job that the arguments ask for.

  Args:
    argv: the arguments, without the program's name; None takes the process's.
    started: `time.monotonic()` at the program's start; now, if None.

  Returns:
    The exit code.
  """
  set_up_logging()
  started = time.monotonic() if started is None else started
  return run(sys.argv[1:] if argv is None else argv, started)


def run(argv: Sequence[str], started: float) -> int:
  """Runs the job that the arguments ask for.

  Args:
    argv: the arguments, without the program's name.
    started: `time.monotonic()` at the program's start.

  Returns:
    The exit code: 2 where the user's input is refused, 130 after Ctrl-C, 1
    where the run cannot go on for another reason.
  """
  workdir = None
  try:
    if (page := help_page(argv, JOBS, __doc__)) is not None:
      _print(page)
      return 0
    command = parse_command_line(argv, JOBS)
    workdir = command.workdir
    run_job(command, started)
  except (Exception, KeyboardInterrupt) as error:
    return report_failure(error, workdir)
  return 0


def _print(page: str) -> None:
  """Prints as much as its reader, such as `head`, takes."""
  try:
    print(page, flush=True)
  except BrokenPipeError:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run_job(command: Command, started: float) -> None:
  """Runs the job that a command line asks for.

  Args:
    command: a parsed command line.
    started: `time.monotonic()` at the program's start.

  Raises:
    ConfigError: the command or its configuration cannot run.
  """
  keep_compiled_programs(command.compilation_cache)
  with joined(command.processes, command.job, command.workdir):
    check_devices()
    if command.sweep is not None:
      _sweep(command)
    elif command.job == "study":
      _study(command)
    elif command.plot is not None:
      _plot(command.plot)
    elif command.job == "train":
      _train(command, started)
    else:
      _measure(command, started)


# Each job imports orbax, TensorFlow or scikit-learn, in seconds.


def _train(command: Command, started: float) -> None:
  from forgetsam.experiment.jobs.train import train

  if command.config is None:
    raise ConfigError(
      "--config is missing\n  allowed: FILE:VARIANT, such as "
      "--config=configs/digits.py:obf"
    )
  try:
    train(command.config, command.workdir, started=started)
  except PreemptedError as end:  # the state is saved: all is well
    print(f"\n{end}")


def _measure(command: Command, started: float) -> None:
  """Runs a job on a run that has saved a checkpoint."""
  workdir, config = command.workdir, command.config
  if config is None:
    saved = with_recorded_place(workdir, on_main(lambda: load_config(workdir)))
    config = apply_overrides(saved, command.overrides)
  else:
    config = with_recorded_modules(workdir, config)
  if command.job == "evaluate":
    from forgetsam.experiment.jobs.evaluate import evaluate_run

    evaluate_run(config, workdir, started=started)
  elif command.job == "sharpness":
    from forgetsam.experiment.jobs.sharpness import measure_sharpness

    measure_sharpness(config, workdir, started=started)
  else:
    from forgetsam.experiment.jobs.forgetting import measure_forgetting

    measure_forgetting(config, workdir, started=started)


def _sweep(command: Command) -> None:
  from forgetsam.experiment.jobs.sweep import sweep

  assert command.sweep is not None
  if command.file is None or split_config(command.file)[1] is not None:
    raise ConfigError(
      f"--config={command.file} is refused\n  allowed: a file alone, such as "
      "--config=configs/digits.py; --variants names its variants"
    )
  try:
    sweep(command.file, command.overrides, command.sweep, command.workdir)
  except PreemptedError as end:
    print(f"\n{end}")


def _study(command: Command) -> None:
  from forgetsam.studies.correlation.job import study

  study(command.file or "", command.overrides, command.arms, command.workdir)


def _plot(flags: PlotFlags) -> None:
  from forgetsam.experiment.jobs.plot import plot_runs

  plot_runs(flags)
