"""A file may return any kind of ConfigDict, and every key can be overridden."""

from pathlib import Path

import pytest

from forgetsam.experiment.config import (
  apply_overrides,
  check_config,
  config_hash,
  config_to_dict,
  leaves,
  load_config_file,
)

FILE = """
import json
from ml_collections import config_dict
from forgetsam.experiment import base_config

def get_config():
  config = base_config()
  return {}
"""
KINDS = {
  "as it is": "config",
  "frozen": "config_dict.FrozenConfigDict(config)",
  "locked": "config.lock()",
  "without types": "config_dict.ConfigDict(config.to_dict())",
  "from JSON": "config_dict.ConfigDict(json.loads(config.to_json()))",
  "frozen, from JSON": (
    "config_dict.FrozenConfigDict(json.loads(config.to_json()))"
  ),
  "frozen inside": (
    "config_dict.ConfigDict({**config.to_dict(),"
    " 'data': config_dict.FrozenConfigDict(config.data)})"
  ),
}
OVERRIDES = {
  "epochs": ("3", 3),
  "ascent.lam": ("0.1", 0.1),  # none until set
  "data.dir": ("/x", "/x"),
  "data.mean": ("(0.1,)", (0.1,)),
  "model.hidden": ("(8,)", (8,)),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_kind_is_overridden_and_means_the_same(
  kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  monkeypatch.setattr("forgetsam.data.check_available", lambda *_: None)
  file = tmp_path / "mine.py"
  arguments = [f"--config.{key}={text}" for key, (text, _) in OVERRIDES.items()]
  hashes = set()
  for returned in (KINDS["as it is"], kind):
    file.write_text(FILE.replace("{}", returned))
    config = apply_overrides(load_config_file(str(file)), arguments)
    found = leaves(config)
    assert {key: found[key] for key in OVERRIDES} == {
      key: value for key, (_, value) in OVERRIDES.items()
    }
    check_config(config, num_devices=1)
    hashes.add(config_hash(config_to_dict(config)))
  assert len(hashes) == 1


def test_references_stay(tmp_path: Path):
  file = tmp_path / "mine.py"
  change = "config.evaluation.batch_size = config.get_ref('batch_size')"
  text = FILE.replace("  return {}", f"  {change}\n  return config")
  file.write_text(text)
  config = apply_overrides(
    load_config_file(str(file)), ["--config.batch_size=6"]
  )
  assert config.evaluation.batch_size == 6
