"""Keys that were added after a run began: what it reads, and its hash."""

from typing import Any

import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from forgetsam.experiment import base_config
from forgetsam.experiment.config import (
  KEYS,
  Key,
  config_from_dict,
  config_hash,
  config_to_dict,
  differing_keys,
  leaves,
  with_absent,
)
from forgetsam.experiment.config._rules import COUNT


@pytest.fixture
def values() -> dict[str, Any]:
  return config_to_dict(base_config())


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> str:
  """A key whose default is not what runs did before it."""
  row = Key(4, COUNT, "Of a later version", absent=1)
  table: Any = KEYS
  monkeypatch.setitem(table, "perturbation.later", row)
  return "perturbation.later"


def test_the_hash_of_the_defaults_is_that_of_the_first_runs(
  values: dict[str, Any],
):
  """A key that is added needs `absent`; without, every hash is another."""
  assert config_hash(values) == "8abd35497d6b56cb"


@pytest.mark.parametrize(
  "missing",
  [["data.skip_corrupt"], ["data.crop_area", "model.remat"], list(KEYS)],
  ids=["one", "two", "all"],
)
def test_missing_keys_read_what_runs_did_before(
  missing: list[str], values: dict[str, Any]
):
  flat = flatten_dict(values, sep=".")
  kept = {
    k: v
    for k, v in flat.items()
    if k not in missing or k in ("data.name", "model.name")
  }
  old = unflatten_dict(kept, sep=".")
  completed, absent = with_absent(old)
  assert set(absent) == set(flat) - set(kept)
  assert leaves(config_from_dict(completed)) == leaves(base_config())
  assert differing_keys(old, values) == {}


def test_a_later_key_leaves_older_runs_as_they_are(
  values: dict[str, Any], added: str
):
  completed, absent = with_absent(values)
  assert absent == {added: 1}
  assert config_hash(completed) == config_hash(values)
  now = config_to_dict(base_config())
  assert now["perturbation"]["later"] == 4
  assert config_hash(now) != config_hash(values)
  assert differing_keys(values, now) == {added: (1, 4)}


def test_what_no_run_was_without_is_not_made_up(values: dict[str, Any]):
  del values["model"]["name"], values["data"]["name"]
  assert with_absent(values)[1] == {}
