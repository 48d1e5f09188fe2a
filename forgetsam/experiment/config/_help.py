"""The pages of `--help`, from the jobs, the flags and the table of keys."""

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import flags

from forgetsam.experiment.config._command_line import (
  apply_overrides,
  read_flags,
)
from forgetsam.experiment.config._config_files import (
  load_config_file,
  split_config,
  variants_of,
)
from forgetsam.experiment.config._errors import ConfigError, closest, refusal
from forgetsam.experiment.config._json import leaves
from forgetsam.experiment.config._keys import KEYS
from forgetsam.experiment.config._options import OPTIONS

_KEY = re.compile(r"^(--)?config\.")  # as a key is printed
_HELP = re.compile(r"-h|--?help(=(?P<group>.*))?")


def help_page(
  argv: Sequence[str], jobs: Mapping[str, str], about: str
) -> str | None:
  """The page that `--help` asks for.

  `--help` alone lists jobs, flags and groups of keys; `--help=GROUP` a group's
  keys, `--help --config=FILE` a file's variants and all keys with its values.

  Args:
    argv: the arguments, without the program's name.
    jobs: names that `--job` may take, and a line on each.
    about: what stands above the jobs.

  Returns:
    The page; None where no argument asks for one.

  Raises:
    ConfigError: a flag, a group or the file is refused.
  """
  asked = [match for arg in argv if (match := _HELP.fullmatch(arg))]
  if not asked:
    return None
  others = [arg for arg in argv if not _HELP.fullmatch(arg)]
  values, overrides, rest = read_flags(others, jobs)
  groups = [match["group"] for match in asked] + rest
  group = next((_KEY.sub("", one) for one in groups if one), None)
  if values.config is None and group is None:
    return "\n\n".join([about.strip(), *_overview(values, jobs)])
  settings = {key: row.default for key, row in KEYS.items()}
  head = []
  if values.config is not None:
    file, variant = split_config(values.config)
    config = load_config_file(f"{file}:{variant}" if variant else file)
    settings = leaves(apply_overrides(config, overrides))
    head.append(_filled(f"Variants of {file}: {variants_of(file)}"))
  return "\n\n".join([*head, *_keys(settings, group)])


def _overview(
  values: flags.FlagValues, jobs: Mapping[str, str]
) -> Iterator[str]:
  about = {
    f"--{name}": f"{values[name].help}{_default(values[name].value)}"
    for name in values
  }
  yield _table("Jobs, --job=JOB:", jobs)
  yield _table("Flags:", about)
  groups = dict.fromkeys(key.rpartition(".")[0] for key in KEYS)
  alone = ", ".join(key for key in KEYS if "." not in key)
  yield _filled(f"Keys, --config.KEY=VALUE: {alone}")
  yield _filled(f"Groups of keys: {', '.join(filter(None, groups))}")
  yield (
    "--help=GROUP lists the keys of a group, and --help --config=FILE the\n"
    "variants of a file and all keys with its values."
  )


def _default(value: Any) -> str:
  return "" if value in (None, [], False) else f" ({value})"


def _table(title: str, rows: Mapping[str, str]) -> str:
  lines = [f"  {name:<20} {text}" for name, text in rows.items()]
  return "\n".join([title, *(_filled(line, 23) for line in lines)])


def _keys(settings: Mapping[str, Any], group: str | None) -> Iterator[str]:
  """A paragraph for each key of the group, or of all, in the table's order."""
  groups = {key.partition(".")[0] for key in settings if "." in key}
  names = {*settings, *groups, *OPTIONS}
  if group is not None and group not in names:
    text = f"{closest(group, names)}; groups are {', '.join(sorted(groups))}"
    raise ConfigError(refusal("--help", group, text))
  for key in dict.fromkeys([*KEYS, *settings]):
    inside = group in (None, key) or key.startswith(f"{group}.")
    if key in settings and inside:
      yield _key(key, settings[key])
  for options, row in OPTIONS.items():
    if group in (None, options) or options.startswith(f"{group}."):
      about = f"    {row.help} ({row.rule.allowed})"
      yield f"--config.{options}.NAME=VALUE\n{_filled(about, 4)}"


def _key(key: str, value: Any) -> str:
  word = "".join(repr(value).split()) if isinstance(value, tuple) else value
  if value is None or isinstance(value, bool):
    word = str(value).lower()
  first = f"--config.{key}={word}"
  if key not in KEYS:
    return first
  row = KEYS[key]
  return f"{first}\n{_filled(f'    {row.help} ({row.allowed})', 4)}"


def _filled(text: str, indent: int = 2) -> str:
  following = " " * indent
  return textwrap.fill(
    text, 80, subsequent_indent=following, break_on_hyphens=False
  )
