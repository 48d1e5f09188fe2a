"""One run at a time in a folder."""

import fcntl
import os
from pathlib import Path
from typing import IO

from forgetsam.config import ConfigError
from forgetsam.config._errors import refusal


class WorkdirLock:
  """Holds a folder for this process; the system lets go when it dies.

  Where the file system knows no locks, nothing is held, and nothing refused.

  Args:
    workdir: a folder that exists and can be written to.

  Raises:
    ConfigError: another process holds it.
  """

  def __init__(self, workdir: Path):
    path = workdir / ".lock"
    try:
      self._file: IO[str] = path.open("a+")
    except OSError as error:
      raise ConfigError(
        f"--workdir={workdir} is refused: {error}\n"
        "  allowed: a folder that can be written to"
      ) from error
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      self._file.seek(0)
      holder = self._file.read().strip() or "unknown"
      self._file.close()
      raise ConfigError(
        refusal(
          "--workdir",
          str(workdir),
          f"a folder that no other run uses; process {holder} trains in it",
        )
      ) from error
    except OSError:  # no locks here
      return
    self._file.truncate(0)
    self._file.write(f"{os.getpid()}")
    self._file.flush()

  def __enter__(self) -> "WorkdirLock":
    return self

  def __exit__(self, *_: object) -> None:
    self._file.close()
