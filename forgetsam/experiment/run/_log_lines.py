"""Which lines of the libraries' logs reach the terminal."""

import logging

from absl import flags
from absl import logging as absl_logging


def set_up_logging() -> None:
  """Shows metrics and warnings, not what every library has to say."""
  flags.FLAGS.mark_as_parsed()  # absl's own flags keep their defaults
  absl_logging.set_verbosity(absl_logging.INFO)
  absl_logging.use_absl_handler()
  handler = absl_logging.get_absl_handler()
  handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
  handler.addFilter(
    lambda record: (
      (
        record.levelno >= logging.WARNING
        or record.filename == "logging_writer.py"
      )
      # What orbax logs with a traceback is raised as well.
      and not (record.exc_info and "orbax" in record.pathname)
    )
  )
