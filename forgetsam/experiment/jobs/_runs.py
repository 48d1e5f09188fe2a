"""Finds runs on disk, and tells them apart in few words."""

import collections
import glob
import itertools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from forgetsam.experiment.config import (
  KEYS,
  ConfigError,
  leaves,
  path_of_flag,
  refusal,
)
from forgetsam.experiment.run import (
  CONFIG,
  SUMMARY,
  load_config,
  read_json,
  read_metrics,
)

_SEEDS = ("seed", "data.split_seed")


class Run(NamedTuple):
  """A run as it lies on disk.

  Attributes:
    folder: its workdir.
    config: the keys that decide its result, with their values.
    metrics: what it logged, by name and step.
    final: its last numbers by name, of the summary where it is complete.
  """

  folder: Path
  config: dict[str, Any]
  metrics: dict[str, dict[int, float]]
  final: dict[str, float]


def find_runs(names: Sequence[str]) -> list[Path]:
  """The folders of runs that are named, lie below a named one, or match.

  Raises:
    ConfigError: a name leads to no run.
  """
  found: dict[Path, None] = {}
  for name in names:
    path = path_of_flag("--workdir", name)
    matches = [path] if path.exists() else map(Path, glob.glob(str(path)))
    runs = [
      run for match in sorted(matches, key=_order) for run in _below(match)
    ]
    if not runs:
      text = (
        "the folder of a run, one that holds runs, or a pattern that matches "
        "such folders ('runs/*', in quotes); several with commas between them"
      )
      raise ConfigError(refusal("--workdir", name, text))
    found |= dict.fromkeys(runs)
  return list(found)


def _below(folder: Path) -> list[Path]:
  runs = []
  for here, folders, files in os.walk(folder):
    if CONFIG in files:
      runs.append(Path(here))
      folders.clear()
  return sorted(runs, key=_order)


def _order(path: Path) -> list[tuple[int, str]]:
  """Numbers in names count as such: seed 10 comes after seed 9."""
  parts = re.split(r"(\d+)", str(path))
  return [(int(x), "") if x.isdigit() else (-1, x) for x in parts]


def read_run(folder: Path) -> Run:
  """Reads a run, complete or not.

  Raises:
    ConfigError: a file of the folder is not what a run wrote.
  """
  config = leaves(load_config(folder))
  metrics = {k: v for k, v in read_metrics(folder).items() if v}
  summary = read_json(folder / SUMMARY) or {}
  final = {k: list(v.values())[-1] for k, v in metrics.items()}
  final |= {k: v for k, v in summary.items() if "/" in k}
  binding = {
    k: v for k, v in config.items() if k not in KEYS or KEYS[k].binding
  }
  return Run(folder, binding, metrics, final)


def group_runs(runs: Sequence[Run]) -> dict[str, list[Run]]:
  """Seeds of one configuration together, under a label of few words.

  A label says by which keys a configuration differs from the others, where
  there are at most two of these, or else where its runs lie.
  """
  by_config = collections.defaultdict[str, list[Run]](list)
  for run in runs:
    by_config[repr(sorted(_without_seeds(run).items()))].append(run)
  groups: list[list[Run]] = []
  for group in by_config.values():
    seeds = {tuple(run.config.get(key) for key in _SEEDS) for run in group}
    # Runs that repeat one another are there to be compared.
    groups += [group] if len(seeds) == len(group) else [[run] for run in group]
  labels = _labels_of_keys([_without_seeds(group[0]) for group in groups])
  if len(set(labels)) < len(groups) or not all(labels):
    labels = _labels_of_folders(groups)
  if len(set(labels)) < len(groups):
    labels = [str(group[0].folder) for group in groups]
  return dict(zip(labels, groups, strict=True))


def _without_seeds(run: Run) -> dict[str, Any]:
  return {k: v for k, v in run.config.items() if k not in _SEEDS}


def _labels_of_keys(configs: Sequence[Mapping[str, Any]]) -> list[str]:
  """Empty ones where the configurations differ in many keys, or none."""
  every = dict.fromkeys(key for config in configs for key in config)
  keys = [k for k in every if len({repr(c.get(k)) for c in configs}) > 1]
  if len(keys) > 2:
    return [""] * len(configs)
  return [
    ", ".join(_words(k, config.get(k)) for k in keys) for config in configs
  ]


def _words(key: str, value: Any) -> str:
  *_, name = key.split(".")
  if name == "name":
    return str(value)
  return f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"


def _labels_of_folders(groups: Sequence[Sequence[Run]]) -> list[str]:
  """Names of folders, without what all have or what tells seeds apart."""
  folders = [[run.folder.absolute() for run in group] for group in groups]
  every = [folder for group in folders for folder in group]
  common = Path(os.path.commonpath([folder.parent for folder in every]))
  labels = []
  for group in folders:
    names = [str(folder.relative_to(common)) for folder in group]
    shared = _common_start(names).rstrip("/_-. ")
    name = names[0] if len(names) == 1 else common.name
    labels.append(re.sub(r"[/_-]?seed$", "", shared) or name)
  return labels


def _common_start(names: Sequence[str]) -> str:
  columns = zip(*names, strict=False)
  same = itertools.takewhile(lambda letters: len(set(letters)) == 1, columns)
  return "".join(letters[0] for letters in same)
