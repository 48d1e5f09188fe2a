"""The command line: flags, the configuration's file and its overrides."""

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags
from ml_collections import config_dict, config_flags

from forgetsam.experiment.config._config_files import (
  load_config_file,
  no_variant,
  split_config,
)
from forgetsam.experiment.config._errors import (
  ConfigError,
  closest,
  path_of_flag,
  refusal,
)
from forgetsam.experiment.config._json import leaves
from forgetsam.experiment.config._keys import KEYS
from forgetsam.experiment.config._options import (
  is_optional,
  option_row,
  parse_option,
  set_option,
)
from forgetsam.experiment.config._plot_flags import (
  PlotFlags,
  define_plot_flags,
  read_plot_flags,
)
from forgetsam.experiment.config._process_flags import (
  ProcessFlags,
  define_process_flags,
  read_process_flags,
)
from forgetsam.experiment.config._sweep_flags import (
  SweepFlags,
  define_sweep_flags,
  read_sweep_flags,
)

_OVERRIDE = re.compile(
  r"--?(no)?config\.(?P<key>[^=]*)(=(?P<value>.*))?$", re.DOTALL
)
_NEGATIVE = re.compile(r"-(\.?\d|inf|nan)", re.IGNORECASE)


class Command(NamedTuple):
  """A parsed command line."""

  job: str
  workdir: Path
  config: config_dict.ConfigDict | None
  overrides: tuple[str, ...]  # arguments that change `config`, in order
  file: str | None = None  # --config as given
  sweep: SweepFlags | None = None  # of the sweep, which loads many configs
  arms: tuple[str, ...] = ()  # of the study
  processes: ProcessFlags = ProcessFlags()
  compilation_cache: str | None = None  # a folder, "none", or a default one
  plot: PlotFlags | None = None  # of the plot, which reads many runs


def parse_command_line(argv: Sequence[str], jobs: Collection[str]) -> Command:
  """Reads `--job`, `--workdir`, `--config` and `--config.key=value`.

  The flags are the call's own, not absl's global ones, so that tests and
  notebooks can parse more than once.

  Args:
    argv: the arguments, without the program's name.
    jobs: names that `--job` may take; the first is the default.

  Returns:
    The command; `config` has the overrides applied, or is None where no file
    was named.

  Raises:
    ConfigError: a flag, file, variant, key or value is unknown or missing.
  """
  values, overrides, rest = read_flags(argv, jobs)
  if rest:
    raise ConfigError(
      refusal("argument", rest[0], "flags only, such as --config.seed=1")
    )
  if values.job not in jobs:
    raise ConfigError(refusal("--job", values.job, "one of " + ", ".join(jobs)))
  if values.config and split_config(values.config)[1] == "":
    raise no_variant(values.config)
  if not values.workdir:
    raise ConfigError(
      "--workdir is missing\n  allowed: a folder for the run's files, such as "
      "--workdir=/tmp/run"
    )
  workdir = path_of_flag("--workdir", values.workdir)
  cache = values.compilation_cache
  if cache not in (None, "none"):
    cache = str(path_of_flag("--compilation_cache", cache))
  processes = read_process_flags(values)
  sweep = read_sweep_flags(values)
  if values.arms and values.job != "study":
    text = "with --job=study only"
    raise ConfigError(refusal("--arms", ",".join(values.arms), text))
  config = None
  if values.config and sweep is None and values.job != "study":
    config = apply_overrides(load_config_file(values.config), overrides)
  return Command(
    job=values.job,
    workdir=workdir,
    config=config,
    overrides=overrides,
    file=values.config,
    sweep=sweep,
    arms=tuple(values.arms),
    processes=processes,
    compilation_cache=cache,
    plot=read_plot_flags(values, overrides),
  )


def read_flags(
  argv: Sequence[str], jobs: Collection[str]
) -> tuple[flags.FlagValues, tuple[str, ...], list[str]]:
  """The flags, the arguments that override keys, and what is neither."""
  argv = _join_values(argv)
  overrides = tuple(arg for arg in argv if _OVERRIDE.match(arg))
  values = _define_flags(next(iter(jobs)))
  try:
    rest = values(["main.py", *(a for a in argv if a not in overrides)])[1:]
  except flags.Error as error:
    known = " ".join(f"--{name}" for name in values)
    raise ConfigError(
      f"{error}\n  allowed: {known} --config.KEY=VALUE"
    ) from error
  return values, overrides, rest


def _define_flags(job: str) -> flags.FlagValues:
  values = flags.FlagValues()
  for name, default, about in [
    ("config", None, "FILE:VARIANT, where FILE defines get_config(VARIANT)"),
    (
      "workdir",
      None,
      "Folder of the run; for --job=plot runs, separated by commas",
    ),
    ("job", job, "What to do"),
    ("compilation_cache", None, "Folder of compiled programs, or 'none'"),
  ]:
    flags.DEFINE_string(name, default, about, flag_values=values)
  about = "Arms of --job=study, separated by commas; all, if none is named"
  flags.DEFINE_list("arms", [], about, flag_values=values)
  define_sweep_flags(values)
  define_plot_flags(values)
  define_process_flags(values)
  return values


def _join_values(argv: Sequence[str]) -> list[str]:
  """Writes `--config.key value` as `--config.key=value`, as absl reads it."""
  joined: list[str] = []
  for arg in argv:
    last = joined[-1] if joined else ""
    waits = _OVERRIDE.match(last) and "=" not in last
    if waits and (not arg.startswith("-") or _NEGATIVE.match(arg)):
      joined[-1] = f"{last}={arg}"
    else:
      joined.append(arg)
  return joined


def apply_overrides(
  config: config_dict.ConfigDict, overrides: Sequence[str]
) -> config_dict.ConfigDict:
  """The configuration after `--config.key=value` arguments."""
  known = {f"config.{key}" for key in leaves(config)}
  for argument in overrides:
    match = _OVERRIDE.match(argument)
    assert match is not None  # the caller chose the arguments by this pattern
    key, value = f"config.{match['key']}", match["value"]
    if option_row(match["key"]):
      parsed = parse_option(key, value, negated=match[1] is not None)
      set_option(config, match["key"], parsed)
      continue
    if key not in known:
      hint = f"no such key; {closest(key, known)}"
      raise ConfigError(refusal(key, value, hint))
    _override(config, argument, match["key"], value)
  return config


def _override(
  config: config_dict.ConfigDict, argument: str, path: str, value: str | None
) -> None:
  """Sets one key in place, parsed as the type that it has."""
  *parents, name = path.split(".")
  holder = config
  for parent in parents:
    holder = holder[parent]
  if value is not None and value.lower() == "none" and is_optional(path):
    holder[name] = None
    return
  values = flags.FlagValues()
  try:
    config_flags.DEFINE_config_dict(
      "config", config, flag_values=values, sys_argv=[argument]
    )
    values(["main.py", argument])
  except (flags.Error, TypeError, ValueError) as error:
    allowed = f"a value of type {holder.get_type(name).__name__}"
    if path in KEYS:
      allowed = KEYS[path].allowed
    raise ConfigError(refusal(f"config.{path}", value, allowed)) from error
