"""What `main.py --job=NAME` can do, one job a file."""

from pathlib import Path

from ml_collections import config_dict

from forgetsam.experiment.config import Command, ConfigError
from forgetsam.experiment.run._failures import report_failure
from forgetsam.experiment.run._log_lines import set_up_logging

__all__ = ["JOBS", "report_failure", "run_job", "set_up_logging"]

JOBS = ("train", "evaluate", "sharpness", "forgetting", "sweep", "study")


def run_job(command: Command, started: float) -> None:
  """Runs the job that a command line asks for.

  Args:
    command: a parsed command line.
    started: `time.monotonic()` at the program's start.

  Raises:
    ConfigError: the command or its configuration cannot run.
  """
  from forgetsam.experiment.run._compilation_cache import keep_compiled_programs
  from forgetsam.experiment.run._distributed import joined

  keep_compiled_programs(command.compilation_cache)
  with joined(command.processes, command.job, command.workdir):
    _run(command, started)


def _run(command: Command, started: float) -> None:
  from forgetsam.experiment.config import apply_overrides
  from forgetsam.experiment.run._processes import on_main
  from forgetsam.experiment.run._run_files import load_config

  if command.job in ("evaluate", "sharpness", "forgetting"):
    config = command.config
    if config is None:
      saved = on_main(lambda: load_config(command.workdir))
      config = apply_overrides(saved, command.overrides)
    _measure(command.job, config, command.workdir)
    return
  if command.sweep is not None:
    _run_sweep(command)
    return
  if command.job == "study":
    from forgetsam.studies.correlation._job import study

    file = command.file or ""
    study(file, command.overrides, command.arms, command.workdir)
    return
  if command.config is None:
    raise ConfigError(
      "--config is missing\n  allowed: FILE:VARIANT, such as "
      "--config=configs/digits.py:obf"
    )
  from forgetsam.experiment.jobs.train import train
  from forgetsam.experiment.run._preemption import PreemptedError

  try:
    train(command.config, command.workdir, started=started)
  except PreemptedError as end:  # the state is saved: all is well
    print(f"\n{end}")


def _measure(job: str, config: config_dict.ConfigDict, workdir: Path) -> None:
  """Runs a job that looks at a finished or running run."""
  if job == "evaluate":
    from forgetsam.experiment.jobs.evaluate import evaluate_run

    evaluate_run(config, workdir)
  elif job == "sharpness":
    from forgetsam.experiment.jobs.sharpness import measure_sharpness

    measure_sharpness(config, workdir)
  else:
    from forgetsam.experiment.jobs.forgetting import measure_forgetting

    measure_forgetting(config, workdir)


def _run_sweep(command: Command) -> None:
  from forgetsam.experiment.jobs.sweep import sweep

  assert command.sweep is not None
  if command.file is None or ":" in command.file:
    raise ConfigError(
      f"--config={command.file} is refused\n  allowed: a file alone, such as "
      "--config=configs/digits.py; --variants names its variants"
    )
  sweep(command.file, command.overrides, command.sweep, command.workdir)
