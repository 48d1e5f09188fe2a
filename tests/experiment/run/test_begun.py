"""A run keeps what it began with: the keys of its time, and its data."""

import logging
from pathlib import Path
from typing import Any

import pytest
from ml_collections import config_dict

from forgetsam.data import SetIdentity
from forgetsam.experiment import base_config
from forgetsam.experiment.config import (
  KEYS,
  ConfigError,
  check_config,
  config_to_dict,
)
from forgetsam.experiment.run import DataRecord, as_begun, write_json

PLAIN = {"train": {"examples": 8, "files_sha256": "a"}}


def start(
  workdir: Path, config: config_dict.ConfigDict, *lacks: str
) -> config_dict.ConfigDict:
  values = config_to_dict(config)
  for key in lacks:
    group, name = key.split(".")
    del values[group][name]
  write_json(workdir / "config.json", values)
  return config


def test_a_key_that_is_not_there_is_said(
  tmp_path: Path, caplog: pytest.LogCaptureFixture
):
  config = start(tmp_path, base_config(), "data.skip_corrupt", "combine.gamma")
  with caplog.at_level(logging.WARNING):
    assert as_begun(tmp_path, config) is config
  assert "data.skip_corrupt=False, combine.gamma=0.9" in caplog.text
  assert str(tmp_path / "config.json") in caplog.text


def test_a_default_of_a_later_key_is_not_switched_on_in_an_older_run(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  config = start(tmp_path, base_config(), "perturbation.steps")
  table: Any = KEYS
  later = KEYS["perturbation.steps"]._replace(default=4, absent=1)
  monkeypatch.setitem(table, "perturbation.steps", later)
  config.perturbation.steps = 4  # as a recipe has it now
  assert as_begun(tmp_path, config).perturbation.steps == 1
  assert config.perturbation.steps == 4
  config.perturbation.steps = 2  # asked for, and refused with the difference
  assert as_begun(tmp_path, config).perturbation.steps == 2


def test_the_version_may_be_named_or_not(tmp_path: Path):
  config = start(tmp_path, base_config())
  record = DataRecord(tmp_path)
  record.check("digits", SetIdentity("digits:1.0.0", PLAIN))
  record.write()
  for name, expected in [
    ("digits", "digits"),
    ("digits:1.0.0", "digits"),
    ("digits:2.0.0", "digits:2.0.0"),
  ]:
    config.data.name = name
    assert as_begun(tmp_path, config).data.name == expected
  assert DataRecord(tmp_path).full_name("digits") == "digits:1.0.0"
  assert DataRecord(tmp_path).full_name("mnist") == "mnist"


@pytest.mark.parametrize(
  ("now", "refused"),
  [
    ({"train": {"examples": 8, "files_sha256": "a"}}, False),
    ({"test": {"examples": 3, "files_sha256": "b"}}, False),
    ({"train": {"examples": 8, "files_sha256": None}}, False),
    ({"train": {"examples": 8, "pixels_sha256": "c"}}, False),
    ({"train": {"examples": 8, "files_sha256": "b"}}, True),
    ({"train": {"examples": 9, "files_sha256": None}}, True),
  ],
)
def test_only_what_is_known_of_both_is_compared(
  now: dict[str, Any], refused: bool, tmp_path: Path
):
  record = DataRecord(tmp_path)
  record.check("tiny", SetIdentity("tiny:1.0.0", PLAIN))
  found = SetIdentity("tiny:1.0.0", now)
  if not refused:
    record.check("tiny", found)
    record.check("tiny", SetIdentity("tiny:1.0.0", PLAIN))
    return
  with pytest.raises(ConfigError, match=r"config\.data\.name='tiny'") as error:
    record.check("tiny", found)
  assert "content, 8 a, and is" in str(error.value)
  assert str(tmp_path / "data.json") in str(error.value)


def test_a_record_that_no_run_wrote_is_refused(tmp_path: Path):
  write_json(tmp_path / "data.json", {"digits": 3})
  with pytest.raises(
    ConfigError, match=r"data\.json=3(.|\n)*as a run wrote it"
  ):
    DataRecord(tmp_path)


def test_other_sets_are_scored_where_the_training_set_is_not_there(
  tmp_path: Path,
):
  config = base_config()
  config.data.name, config.data.dir = "of_my_own", str(tmp_path)
  config.evaluation.sets = "digits"
  check_config(config, 1, trains=False)
  with pytest.raises(ConfigError, match=r"config\.data\.name='of_my_own'"):
    check_config(config, 1)
  config.evaluation.sets = ""
  with pytest.raises(ConfigError, match=r"config\.data\.name='of_my_own'"):
    check_config(config, 1, trains=False)
