"""The error that tells a user what to change."""

import difflib
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


def closest(word: str, known: Iterable[str]) -> str:
  """A hint at the known word that is most like a mistyped one."""
  known = sorted(known)
  if f"{word}.name" in known:
    return f"the closest key is {word}.name"
  matches = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
  if matches:
    return f"the closest key is {matches[0]}"
  return f"the keys are {', '.join(known)}"
