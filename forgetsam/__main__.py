"""`python -m forgetsam`, and the program `forgetsam`: the command line."""

import gc
import sys
import time

STARTED = time.monotonic()
# Imports make a million objects and no garbage: a second is saved.
gc.set_threshold(200_000, 10, 10)

from forgetsam._lab import MissingPackageError  # noqa: E402


def main() -> int:
  """Runs a job; says what to install where the core is alone."""
  try:
    from forgetsam import cli
  except MissingPackageError as error:
    print(error, file=sys.stderr)
    return 1
  return cli.main(started=STARTED)


if __name__ == "__main__":
  sys.exit(main())
