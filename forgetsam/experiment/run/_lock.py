"""One run at a time in a folder."""

import fcntl
import os
from pathlib import Path
from typing import IO

from forgetsam.experiment.config import ConfigError, refusal
from forgetsam.experiment.run._processes import on_main


class WorkdirLock:
  """Holds a folder for this run; the system lets go when its holder dies.

  Of several processes, process 0 holds it for all. Where the file system knows
  no locks, nothing is held, and nothing refused.

  Args:
    workdir: a folder that exists and can be written to.

  Raises:
    ConfigError: another run holds it.
  """

  def __init__(self, workdir: Path):
    self._file: IO[str] | None = None
    on_main(lambda: self._take(workdir))

  def _take(self, workdir: Path) -> None:
    try:
      file = (workdir / ".lock").open("a+")
    except OSError as error:
      raise ConfigError(
        f"--workdir={workdir} is refused: {error}\n"
        "  allowed: a folder that can be written to"
      ) from error
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      file.seek(0)
      holder = file.read().strip() or "unknown"
      file.close()
      raise ConfigError(
        refusal(
          "--workdir",
          str(workdir),
          f"a folder that no other run uses; process {holder} trains in it",
        )
      ) from error
    except OSError:  # no locks here
      file.close()
      return
    file.truncate(0)
    file.write(f"{os.getpid()}")
    file.flush()
    self._file = file

  def __enter__(self) -> "WorkdirLock":
    return self

  def __exit__(self, *_: object) -> None:
    if self._file is not None:
      self._file.close()
