"""The start of a run: the keys of its time, and its data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import logging
from ml_collections import config_dict

from forgetsam import data
from forgetsam.experiment.config import (
  KEYS,
  ConfigError,
  leaves,
  refusal,
  typed_config,
)
from forgetsam.experiment.run._processes import on_main
from forgetsam.experiment.run._workdir import (
  CONFIG,
  read_config,
  read_json,
  write_json,
)

DATA = "data.json"


def as_begun(
  workdir: Path, config: config_dict.ConfigDict
) -> config_dict.ConfigDict:
  """The configuration of a run that may be older than some of the keys.

  Where its `config.json` lacks a key that `config` leaves at its default, what
  the run did before the key was added is put in its place, and this is said.
  The name of its data is the run's own, with the version or without.

  Args:
    workdir: the run's folder; it may be new.
    config: a checked configuration.

  Returns:
    A configuration of its own where it differs.
  """
  config = typed_config(config)  # to be changed here and later
  values, absent = on_main(lambda: read_config(workdir))
  if absent:
    binding = {k: v for k, v in absent.items() if KEYS[k].binding} or absent
    logging.warning(
      "%s is from before these keys, and has what runs did without them: %s",
      workdir / CONFIG,
      ", ".join(f"{key}={value!r}" for key, value in binding.items()),
    )
  now = leaves(config)  # of a caller's own making, it may lack keys, too
  begun = {
    key: row.unsaid
    for key, row in KEYS.items()
    if key in absent.keys() & now and now[key] == row.default != row.unsaid
  }
  name = values.get("data", {}).get("name")
  if name and config.data.name == _with_version(workdir, name):
    begun["data.name"] = name
  if changed := {key: v for key, v in begun.items() if now.get(key) != v}:
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict(changed)
  return config


def _with_version(workdir: Path, name: str) -> str | None:
  """The name with the version that its run found; None where it is no other."""
  full = DataRecord(workdir).full_name(name)
  return None if full == name else full


def with_recorded_modules(
  workdir: Path, config: config_dict.ConfigDict
) -> config_dict.ConfigDict:
  """A configuration that also looks where the run's modules were found.

  Args:
    workdir: the run's folder; it may be new.
    config: one that is not checked yet; what it names is looked for first.
  """
  values, _ = on_main(lambda: read_config(workdir))
  if known := values.get("modules"):
    config = typed_config(config).copy_and_resolve_references()
    folders = (*(config.modules or ()), *known)
    config.modules = tuple(dict.fromkeys(folders))
  return config


def with_recorded_place(
  workdir: Path, config: config_dict.ConfigDict
) -> config_dict.ConfigDict:
  """A run's configuration, which finds files of its own from anywhere.

  Args:
    workdir: the run's folder.
    config: as `load_config` reads it; a relative path in `data.name` becomes
      the whole path that the run found, and `as_begun` changes it back.
  """
  full = DataRecord(workdir).full_name(config.data.name)
  if Path(full).is_absolute() and Path(full).exists():
    config.data.name = full
  return config


class DataRecord:
  """The sets that a folder's runs read, as they were found: its `data.json`.

  Several processes call every method in the same order.

  Args:
    folder: of a run, a sweep or a study; it may be new.
    began: whether it holds results already; None looks for a run's.
  """

  def __init__(self, folder: Path, began: bool | None = None):
    self._path = folder / DATA
    found = on_main(lambda: read_json(self._path))
    if began is None:
      began = on_main(lambda: (folder / CONFIG).exists())
    self._sets: dict[str, Any] = found or {}
    for one in self._sets.values():
      if not isinstance(one, dict) or not {"name", "splits"} <= set(one):
        allowed = "the file as a run wrote it, or none"
        raise ConfigError(refusal(str(self._path), one, allowed))
    self._unknown = began and found is None

  def full_name(self, name: str) -> str:
    """The name with the version that was found; as it is for new sets."""
    return str(self._sets[name]["name"]) if name in self._sets else name

  def pinned(self, config: config_dict.ConfigDict) -> config_dict.ConfigDict:
    """The configuration with the version of its data that was found before.

    Raises:
      ConfigError: that version is not on this machine any more.
    """
    name = config.data.name
    config = config.copy_and_resolve_references()
    config.data.name = self.available(name, config.data.dir, "data.name")
    return config

  def available(self, name: str, data_dir: str | None, key: str) -> str:
    """As `full_name`; refuses the key where that version is not there."""
    full = self.full_name(name)
    if full == name:
      return name
    try:
      data.check_available(full, data_dir)
    except ValueError as error:
      found = _now(name, data_dir)
      if found is not None and Path(full).is_absolute():
        return found  # files that were moved: `check` compares what they hold
      raise ConfigError(
        refusal(
          f"config.{key}",
          name,
          f"the data that {self._path.parent} began with, {full}; found is "
          f"{found}. {error}\n  Or another --workdir",
        )
      ) from error
    return full

  def check(
    self, name: str, found: data.SetIdentity | None, key: str = "data.name"
  ) -> None:
    """Compares a set with what was found before; notes one that is new.

    Raises:
      ConfigError: a split of the same version has other content.
    """
    if found is None:
      return
    if self._unknown and key == "data.name" and name not in self._sets:
      logging.warning(
        "%s is from before data.json: nothing tells whether its data were "
        "those of %s, which are used now",
        *(self._path.parent, found.name),
      )
    before = self._sets.setdefault(name, {"name": found.name, "splits": {}})
    if Path(found.name).is_absolute():
      before["name"] = found.name  # they may have been moved
    if found.classes:
      before.setdefault("classes", list(found.classes))
    for split, now in found.splits.items():
      then = before["splits"].setdefault(split, dict(now))
      known = {k: v for k, v in now.items() if v is not None}
      if any(then.get(k) not in (None, v) for k, v in known.items()):
        raise ConfigError(
          refusal(
            f"config.{key}",
            name,
            f"what {self._path.parent} began with; {split!r} of {found.name} "
            f"had other content, {_in_words(then)}, and is {_in_words(now)} "
            "now. Restore it, choose another --workdir, or remove "
            f"{self._path} to go on with what is there",
          )
        )
      then.update(known)

  def check_classes(self, name: str, trained_on: str) -> None:
    """Refuses a set to score whose classes have other names than the run's.

    Raises:
      ConfigError: both sets name their classes, and they differ.
    """
    ours, theirs = (
      self._sets.get(one, {}).get("classes") or () for one in (trained_on, name)
    )
    for i, (our, their) in enumerate(zip(ours, theirs, strict=False)):
      if our != their:
        text = (
          f"sets whose classes go by the names of {trained_on}'s: class {i} is"
          f" {our!r} there, and {their!r} here"
        )
        raise ConfigError(refusal("config.evaluation.sets", name, text))

  def check_start(self, init_from: str, sha256: str) -> None:
    """Does the same with the weights that a run starts from."""
    weights = data.SetIdentity(init_from, {"weights": {"sha256": sha256}})
    self.check(init_from, weights, "init_from")

  def write(self, *, begins: bool = True) -> None:
    """Writes the file; only if there was one, where nothing `begins`."""
    if begins or not self._unknown:
      on_main(lambda: write_json(self._path, self._sets))


def _now(name: str, data_dir: str | None) -> str | None:
  """The set that a name stands for now; None where it is not there."""
  try:
    return data.prepared_name(name, data_dir)
  except ValueError:
    return None


def _in_words(fingerprint: Mapping[str, Any]) -> str:
  return " ".join(str(value)[:12] for value in fingerprint.values())
