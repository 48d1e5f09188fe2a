"""What a user reads where a run cannot go on, and the program's exit code."""

import errno
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from forgetsam._errors import CheckpointError, DataError
from forgetsam.config import ConfigError

_FULL_OR_BROKEN = (
  *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO),
)


def report_failure(error: Exception, workdir: Path | None) -> int:
  """Says on stderr what went wrong, first in a sentence.

  Args:
    error: what ended the run.
    workdir: the run's folder, where it is known.

  Returns:
    The exit code: 2 where the user's input is refused, else 1.
  """
  if isinstance(error, ConfigError):
    print(f"\n{error}", file=sys.stderr)
    return 2
  if isinstance(error, (CheckpointError, DataError, FloatingPointError)):
    print(f"\n{error}", file=sys.stderr)
    return 1
  storage = _storage_trouble(error)
  if storage is not None:
    print(f"\n{_about_storage(storage, workdir)}", file=sys.stderr)
    return 1
  print(
    f"\nforgetsam failed where it should not: {type(error).__name__}: "
    f"{_first_line(error)}\nPlease report it with your command, the versions "
    "in your environment (pip freeze), and what follows.\n",
    file=sys.stderr,
  )
  traceback.print_exception(error)
  return 1


def _storage_trouble(error: BaseException) -> tuple[str, str] | None:
  """The system's words and the details, where files cannot be written."""
  for cause in _chain(error):
    if isinstance(cause, OSError) and cause.errno in _FULL_OR_BROKEN:
      return os.strerror(cause.errno), str(cause)
    for number in _FULL_OR_BROKEN:  # other libraries keep the words only
      if os.strerror(number) in str(cause):
        return os.strerror(number), _first_line(cause)
  return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
  while error is not None:
    yield error
    error = error.__cause__ or error.__context__


def _about_storage(trouble: tuple[str, str], workdir: Path | None) -> str:
  words, details = trouble
  place = "the disk" if workdir is None else f"--workdir={workdir}"
  steps = [
    int(path.name)
    for path in ([] if workdir is None else workdir.glob("checkpoints/*"))
    if path.name.isdecimal()
  ]
  saved = (
    f"its newest checkpoint is of step {max(steps)}"
    if steps
    else "it has no checkpoint yet"
  )
  return (
    f"{place} cannot be written to: {words}\n  {details}\nWhat was saved "
    f"before stays as it is; {saved}. Once files can be written, the same "
    "command goes on from there."
  )


def _first_line(error: BaseException) -> str:
  return str(error).partition("\n")[0]
