"""Keys that come to nothing in a short run are warned of, with both numbers."""

from typing import Any

import pytest
from made_up_images import made_up
from ml_collections import config_dict

from forgetsam.experiment import apply_variant, base_config
from forgetsam.experiment.build import build_experiment, build_sources


def config_of(**changes: Any) -> config_dict.ConfigDict:
  """Two epochs of five steps."""
  config = apply_variant(base_config(), "sam")
  config.epochs, config.batch_size, config.model.hidden = 2, 8, (4,)
  config.schedule.warmup_epochs, config.forgetting.per_class = 0.0, 2
  config.update_from_flattened_dict(
    {key.replace("__", "."): value for key, value in changes.items()}
  )
  return config


def said(config: config_dict.ConfigDict, caplog: Any) -> str:
  build_experiment(config, build_sources(config, made_up()))
  return caplog.text


@pytest.mark.parametrize(
  ("changes", "texts"),
  [
    (
      {"schedule__warmup_epochs": 5.0},
      ["config.schedule.warmup_epochs=5 ", "config.epochs=2", "at 40%"],
    ),
    ({"schedule__warmup_epochs": 2.0}, ["warmup_epochs=2 ", "at 100%"]),
    ({"perturbation__every_k": 11}, ["perturbation.every_k=11", "10 steps"]),
    ({"look_sam__k": 11}, ["config.look_sam.k=11", "10 steps"]),
    ({"checkpoint__every_steps": 11}, ["checkpoint.every_steps=11", "saved"]),
    (
      {"probe__every_steps": 11, "probe__perturbations": "sam"},
      ["probe.every_steps=11", "nothing is probed"],
    ),
  ],
)
def test_what_reaches_beyond_the_run_is_warned_of(
  changes: dict[str, Any], texts: list[str], caplog: pytest.LogCaptureFixture
):
  found = said(config_of(**changes), caplog)
  assert "Warning: config." in found
  assert all(text in found for text in texts), found


def test_what_ends_within_the_run_is_not(caplog: pytest.LogCaptureFixture):
  within = {
    "schedule__warmup_epochs": 1.9,
    "perturbation__every_k": 10,
    "checkpoint__every_steps": 10,
    "probe__every_steps": 11,
  }
  assert "Warning" not in said(config_of(**within), caplog)
