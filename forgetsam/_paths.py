"""Paths as users write them."""

import os
import re
import urllib.parse
from pathlib import Path

# One slash: `pathlib` has joined the two of `Path("gs://bucket")`.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
_ROOTS = ("gs", "s3", "az", "hf")


def local_path(name: str, value: str | os.PathLike[str]) -> Path:
  """The path on this machine that a user means.

  A leading `~` or `~user` is a home folder, and `file:///x` is `/x`.

  Args:
    name: of the argument, key or flag, for errors.
    value: the path as written.

  Returns:
    The path, relative ones as they are.

  Raises:
    ValueError: there is no such user, the path is on a remote file system, or
      no path can be like that.

  Example:
    >>> local_path("--workdir", "file:///runs/a%20b").as_posix()
    '/runs/a b'
  """
  text = os.fspath(value)
  if "\0" in text or not text or not is_utf8(text):
    raise _refused(name, text, "a path in UTF-8, without null characters")
  scheme = scheme_of(text)
  if scheme == "file":
    return _from_uri(name, text)
  if scheme is not None:
    allowed = (
      f"a local path; {scheme}:// is not supported: mount it as a folder, or "
      "copy it"
    )
    raise _refused(name, text, allowed)
  path = os.path.expanduser(text)
  if text.startswith("~") and path == text:
    user = text.partition("/")[0]
    allowed = f"a home folder that exists; ./{user} is a folder of that name"
    raise _refused(name, text, allowed)
  return Path(path)


def scheme_of(value: str | os.PathLike[str]) -> str | None:
  """The lower-case scheme of a URI such as `gs://bucket`; None for a path."""
  match = _SCHEME.match(os.fspath(value))
  return match and match[1].lower()


def mistaken_scheme(path: str | os.PathLike[str]) -> str | None:
  """The scheme, where orbax and TFDS take a local path for a URI.

  Both read paths with `epath`, to which `/gs/bucket` is `gs://bucket`.
  """
  first = Path(path).absolute().parts[1:2]
  return first[0] if first and first[0] in _ROOTS else None


def _from_uri(name: str, text: str) -> Path:
  rest = text.partition(":")[2]
  host, path = "", rest
  if rest.startswith("//"):
    host, _, path = rest[2:].partition("/")
    path = f"/{path}"
  path = urllib.parse.unquote(path)
  if host not in ("", "localhost") or "\0" in path:
    allowed = "file:///PATH, a file of this machine by its whole path"
    raise _refused(name, text, allowed)
  return Path(path)


def is_utf8(text: str) -> bool:
  """False where a path has bytes that are not UTF-8's."""
  try:
    text.encode()
  except UnicodeEncodeError:
    return False
  return True


def _refused(name: str, text: str, allowed: str) -> ValueError:
  return ValueError(f"{name}={text!r} is refused\n  allowed: {allowed}")
