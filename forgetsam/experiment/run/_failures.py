"""Reports errors to the user, and chooses the program's exit code."""

import errno
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from forgetsam._lab import MissingPackageError
from forgetsam.data import DataError
from forgetsam.experiment.config import ConfigError
from forgetsam.experiment.run._workdir import CheckpointError, saved_steps

_FULL_OR_BROKEN = (
  *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO),
  *(errno.EACCES, errno.EPERM, errno.ESTALE, errno.ENAMETOOLONG),
)
_KNOWN = (
  *(ConfigError, CheckpointError, DataError, FloatingPointError),
  MissingPackageError,
)


def report_failure(
  error: Exception | KeyboardInterrupt, workdir: Path | None
) -> int:
  """Prints an error to stderr, first in a sentence.

  Args:
    error: the error that ended the run.
    workdir: the run's folder, where it is known.

  Returns:
    The exit code: 2 where the user's input is refused, 130 after Ctrl-C, else
    1.
  """
  if isinstance(error, KeyboardInterrupt):
    text = (
      "Interrupted. What was saved stays; the same command goes on from it."
    )
    print(f"\n{text}", file=sys.stderr)
    return 130
  if isinstance(error, _KNOWN):
    print(f"\n{error}", file=sys.stderr)
    return 2 if isinstance(error, ConfigError) else 1
  if (storage := _storage_error(error, workdir)) is not None:
    print(f"\n{_about_storage(storage, workdir)}", file=sys.stderr)
    return 1
  if (memory := _memory_error(error)) is not None:
    print(f"\n{memory}", file=sys.stderr)
    return 1
  print(
    f"\nforgetsam failed where it should not: {type(error).__name__}: "
    f"{_first_line(error)}\nPlease report it with your command, the versions "
    "in your environment (pip freeze), and what follows.\n",
    file=sys.stderr,
  )
  traceback.print_exception(error)
  return 1


def _memory_error(error: BaseException) -> str | None:
  """Says what to make smaller where Python, JAX or TensorFlow lack memory."""
  for cause in _chain(error):
    name = type(cause).__name__
    if (
      isinstance(cause, MemoryError)
      or name == "ResourceExhaustedError"
      or "RESOURCE_EXHAUSTED" in str(cause)
    ):
      return (
        f"There is not enough memory: {_first_line(cause)}\n  allowed: smaller"
        " config.batch_size, config.micro_batch_size or"
        " config.evaluation.batch_size (of measures: theirs), smaller images or"
        " a smaller model, or config.model.remat=true where the model has it"
      )
  return None


class _StorageError(NamedTuple):
  """The system's words, the details, and the file, where it is known."""

  words: str
  details: str
  file: str | None = None


def _storage_error(
  error: BaseException, workdir: Path | None = None
) -> _StorageError | None:
  """Finds trouble with a disk, or in the run's folder, among the causes."""
  for cause in _chain(error):
    denied = errno.EACCES if isinstance(cause, PermissionError) else None
    if isinstance(cause, OSError) and (number := cause.errno or denied):
      name = cause.filename
      file = os.fsdecode(name) if isinstance(name, str | bytes) else None
      if number in _FULL_OR_BROKEN or _is_in(file, workdir):
        return _StorageError(os.strerror(number), str(cause), file)
    for number in _FULL_OR_BROKEN:  # other libraries keep the words only
      if os.strerror(number) in str(cause):
        return _StorageError(os.strerror(number), _first_line(cause))
  return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
  while error is not None:
    yield error
    error = error.__cause__ or error.__context__


def _about_storage(storage: _StorageError, workdir: Path | None) -> str:
  saved = "it has no checkpoint yet"
  if workdir is not None and (steps := saved_steps(workdir)):
    saved = f"its newest checkpoint is of step {steps[-1]}"
  return (
    f"{_unusable(storage.file, workdir)}: {storage.words}\n"
    f"  {storage.details}\nWhat was saved before stays as it is; {saved}. Once "
    "that is mended, the same command goes on from there."
  )


def _unusable(file: str | None, workdir: Path | None) -> str:
  """Names the run's folder, or a file elsewhere."""
  if workdir is None:
    return "the disk cannot be written to"
  if file is None or _is_in(file, workdir):
    return f"--workdir={workdir} cannot be written to"
  return f"{file} cannot be read or written"


def _is_in(file: str | None, folder: Path | None) -> bool:
  if file is None or folder is None:
    return False
  return Path(file).absolute().is_relative_to(folder.absolute())


def _first_line(error: BaseException) -> str:
  return str(error).partition("\n")[0]
