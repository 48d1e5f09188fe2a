"""The error that tells a user what to change."""

import difflib
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from forgetsam._paths import local_path


class ConfigError(ValueError):
  """A configuration or command that cannot run, in words for its author."""


def refusal(key: str, value: Any, allowed: str) -> str:
  """One refused value: the key, the value and what is allowed."""
  return f"{key}={value!r} is refused\n  allowed: {allowed}"


def path_of_flag(flag: str, value: str) -> Path:
  """The path on this machine that a flag names."""
  try:
    return local_path(flag, value)
  except ValueError as error:
    raise ConfigError(str(error)) from error


def cause(error: BaseException, *places: str | Path | None) -> str:
  """How a program that is not ours fails, and in which line of its file."""
  frames = traceback.extract_tb(error.__traceback__)
  own = tuple(str(Path(p).resolve()) for p in places if p)
  files = [(f, Path(f.filename)) for f in frames]
  lines = [
    f
    for f, file in files
    if file.is_file() and str(file.resolve()).startswith(own)
  ]
  where = ""
  if lines:
    file = Path(lines[-1].filename).name
    where = f" in {file}, line {lines[-1].lineno}"
  return f"fails{where}: {type(error).__name__}: {error}"


def closest(word: str, known: Iterable[str], noun: str = "key") -> str:
  """A hint at the known word that is most like a mistyped one."""
  known = sorted(known)
  if f"{word}.name" in known:
    return f"the closest key is {word}.name"
  matches = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
  if matches:
    return f"the closest {noun} is {matches[0]}"
  return f"the {noun}s are {', '.join(known)}"
