"""Runs a job: python main.py --config=FILE:VARIANT --workdir=DIR [--job=JOB].

Every key of the configuration can be overridden: --config.perturbation.rho=0.1
"""

import gc
import signal
import sys
import time

BEFORE = signal.getsignal(signal.SIGINT)
if __name__ == "__main__" and BEFORE is signal.default_int_handler:
  signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback of an import

STARTED = time.monotonic()  # before the imports, which are part of the wait

if __name__ == "__main__":
  # Imports make a million objects and no garbage: a second is saved.
  gc.set_threshold(200_000, 10, 10)

ASKED = any(arg == "-h" or arg.startswith("--help") for arg in sys.argv)
if __name__ == "__main__" and not ASKED:
  now = time.strftime("%H:%M:%S")
  print(f"{now}   0.0 s  importing JAX ...", file=sys.stderr, flush=True)

from forgetsam.cli import main, run, set_up_logging  # noqa: E402

__all__ = ["main", "run", "set_up_logging"]

if __name__ == "__main__":
  signal.signal(signal.SIGINT, BEFORE)
  sys.exit(main(started=STARTED))
