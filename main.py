"""Runs a job: python main.py --config=FILE:VARIANT --workdir=DIR [--job=JOB].

Every key of the configuration can be overridden: --config.perturbation.rho=0.1
"""

import time

STARTED = time.monotonic()  # before the imports, which are part of the wait

import os  # noqa: E402
import sys  # noqa: E402
from collections.abc import Sequence  # noqa: E402

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # or it announces itself

from forgetsam.cli import (  # noqa: E402
  JOBS,
  report_failure,
  run_job,
  set_up_logging,
)
from forgetsam.experiment.config import parse_command_line  # noqa: E402


def run(argv: Sequence[str], started: float) -> int:
  """Runs the job that the arguments ask for.

  Args:
    argv: the arguments, without the program's name.
    started: `time.monotonic()` at the program's start.

  Returns:
    The exit code: 2 where the user's input is refused, 1 where the run cannot
    go on for another reason.
  """
  if {"-h", "--help"} & set(argv):
    print(__doc__)
    return 0
  workdir = None
  try:
    command = parse_command_line(argv, JOBS)
    workdir = command.workdir
    run_job(command, started)
  except Exception as error:
    return report_failure(error, workdir)
  return 0


if __name__ == "__main__":
  set_up_logging()
  sys.exit(run(sys.argv[1:], STARTED))
