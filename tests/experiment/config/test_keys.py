"""The table of keys, and the configurations that it makes."""

from pathlib import Path

import pytest

from forgetsam.experiment import VARIANTS, apply_variant, base_config
from forgetsam.experiment.config import (
  KEYS,
  check_config,
  leaves,
  load_config_file,
)


@pytest.mark.parametrize("key", KEYS)
def test_a_row_admits_its_default_and_says_what_it_is(key: str):
  row = KEYS[key]
  assert row.admits(row.default)
  assert row.help[0].isupper()
  assert len(row.help) <= 72
  assert row.help[-1] != "."
  assert row.allowed.endswith(", or none") == (row.default is None)


def test_the_base_holds_every_default_and_runs():
  config = base_config()
  assert leaves(config) == {key: row.default for key, row in KEYS.items()}
  assert config.model.get_type("hidden") is tuple
  assert config.optimizer.get_type("clip") is float
  check_config(config, num_devices=1)
  config.epochs = 3
  assert base_config().epochs == KEYS["epochs"].default


def test_a_variant_sets_its_keys_alone():
  for name, changes in VARIANTS.items():
    found = leaves(apply_variant(base_config(), name))
    assert found == leaves(base_config()) | dict(changes)
  with pytest.raises(ValueError, match="'obff' is unknown"):
    apply_variant(base_config(), "obff")


def test_a_file_of_ones_own_needs_no_repository(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  file = tmp_path / "mine.py"
  file.write_text(
    "from forgetsam.experiment import apply_variant, base_config\n"
    "def get_config(variant='sam'):\n"
    "  config = base_config()\n"
    "  config.epochs = 3\n"
    "  return apply_variant(config, variant, {'sam': {'seed': 4}})\n"
  )
  monkeypatch.chdir(tmp_path)
  config = load_config_file("mine.py:sam")
  assert (config.epochs, config.seed) == (3, 4)
  check_config(config, num_devices=1)
