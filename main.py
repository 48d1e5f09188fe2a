"""Runs a job: python main.py --config=FILE:VARIANT --workdir=DIR [--job=JOB].

Every key of the configuration can be overridden: --config.perturbation.rho=0.1
"""

import time

STARTED = time.monotonic()  # before the imports, which are part of the wait

import logging  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
from collections.abc import Sequence  # noqa: E402

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # or it announces itself

from absl import flags  # noqa: E402
from absl import logging as absl_logging  # noqa: E402

from forgetsam._errors import CheckpointError  # noqa: E402
from forgetsam.config import ConfigError, parse_command_line  # noqa: E402
from forgetsam.jobs import JOBS, run_job  # noqa: E402


def run(argv: Sequence[str], started: float) -> int:
  """Runs the job that the arguments ask for.

  Args:
    argv: the arguments, without the program's name.
    started: `time.monotonic()` at the program's start.

  Returns:
    The exit code: 2 where the user's input is refused, 1 where training
    diverged or its checkpoints are damaged.
  """
  if {"-h", "--help"} & set(argv):
    print(__doc__)
    return 0
  try:
    run_job(parse_command_line(argv, JOBS), started)
  except ConfigError as error:
    print(f"\n{error}", file=sys.stderr)
    return 2
  except (CheckpointError, FloatingPointError) as error:
    print(f"\n{error}", file=sys.stderr)
    return 1
  return 0


def set_up_logging() -> None:
  """Shows metrics and warnings, not what every library has to say."""
  flags.FLAGS.mark_as_parsed()  # absl's own flags keep their defaults
  absl_logging.set_verbosity(absl_logging.INFO)
  absl_logging.use_absl_handler()
  handler = absl_logging.get_absl_handler()
  handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
  handler.addFilter(
    lambda record: (
      record.levelno >= logging.WARNING
      or record.filename == "logging_writer.py"
    )
  )


if __name__ == "__main__":
  set_up_logging()
  sys.exit(run(sys.argv[1:], STARTED))
