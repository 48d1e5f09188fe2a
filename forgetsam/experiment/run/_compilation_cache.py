"""Compiled programs that outlive the process: the second start is faster."""

import glob
import hashlib
import logging
import os
import platform
from pathlib import Path

import jax

from forgetsam._paths import scheme_of
from forgetsam.experiment.config import ConfigError, path_of_flag, refusal
from forgetsam.experiment.run._workdir import check_folder

_MOST_BYTES = 2**31
_REMOTE = ("gs", "s3", "az", "hf")  # JAX reads these where they are
_CPU_INFO = Path("/proc/cpuinfo")


def keep_compiled_programs(place: str | None = None) -> None:
  """Lets JAX keep what it compiles in a folder, and look there first.

  Args:
    place: the folder; "none" keeps nothing; None takes JAX's own
      `JAX_COMPILATION_CACHE_DIR` where it is set, and else `default_place()`.
      A folder that cannot be written to is no error: programs are compiled.

  Raises:
    ConfigError: JAX's own folder is on a file system that JAX cannot reach.
  """
  if place == "none":
    jax.config.update("jax_enable_compilation_cache", False)
    return
  chosen: str | None = getattr(jax.config, "jax_compilation_cache_dir", None)
  if place is None and chosen:  # by the environment, or the caller
    if scheme_of(chosen) not in _REMOTE:
      folder = path_of_flag("JAX_COMPILATION_CACHE_DIR", chosen)
      jax.config.update("jax_compilation_cache_dir", str(folder))
    return
  folder = default_place() if place is None else Path(place)
  try:
    if glob.escape(str(folder)) != str(folder):  # JAX would delete no old ones
      allowed = "a folder without [, * and ? in its path"
      raise ConfigError(refusal("--compilation_cache", str(folder), allowed))
    check_folder(folder, "--compilation_cache")
  except ConfigError as error:
    logging.warning("Compiled programs are not kept: %s", error)
    return
  jax.config.update("jax_compilation_cache_dir", str(folder))
  # Small programs too: a start compiles some forty of them.
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
  jax.config.update("jax_compilation_cache_max_size", _MOST_BYTES)


def default_place() -> Path:
  """`forgetsam/compiled/` in the user's cache, a folder for each kind of CPU.

  A home that machines share may hold programs for other instruction sets, of
  which JAX's own key knows nothing on a CPU.
  """
  home = path_of_flag(
    "XDG_CACHE_HOME", os.environ.get("XDG_CACHE_HOME") or "~/.cache"
  )
  digest = hashlib.sha256(_instruction_set().encode()).hexdigest()[:12]
  return home / "forgetsam" / "compiled" / digest


def _instruction_set() -> str:
  try:
    lines = _CPU_INFO.read_text().splitlines()
  except OSError:
    return platform.processor() or platform.machine()
  flags = (line for line in lines if line.startswith(("flags", "Features")))
  return next(flags, platform.machine())
