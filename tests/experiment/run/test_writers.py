"""TensorBoard's hparams, and Weights & Biases by a module that stands in."""

import sys
import types
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.plugins.hparams import metadata

from forgetsam.experiment import base_config
from forgetsam.experiment.config import ConfigError
from forgetsam.experiment.run import (
  MetricsFile,
  Wandb,
  check_wandb,
  open_writers,
)


def test_the_configuration_is_the_hparams(tmp_path: Path):
  config = base_config()
  config.perturbation.rho, config.model.hidden = 0.2, (8, 4)
  for start in (0, 5):  # a second session adds no trial
    for writer in open_writers(tmp_path, config, start):
      writer.write(start + 5, {"test/accuracy": 0.5})
      writer.close()
  events = event_accumulator.EventAccumulator(str(tmp_path)).Reload()
  found = events.PluginTagToContent(metadata.PLUGIN_NAME)
  session = metadata.parse_session_start_info_plugin_data(
    found[metadata.SESSION_START_INFO_TAG]
  )
  values = session.hparams
  assert values["perturbation.rho"].number_value == 0.2
  assert values["perturbation.name"].string_value == "none"
  assert values["model.hidden"].string_value == "(8, 4)"
  assert values["data.flip"].bool_value is False
  assert "log.every_steps" not in values


class Module(types.ModuleType):
  """Notes what it is asked for, as `wandb` would."""

  def __init__(self) -> None:
    super().__init__("wandb")
    self.runs: list[dict[str, Any]] = []
    self.logged: list[tuple[int, dict[str, float]]] = []
    self.codes: list[int] = []

  def init(self, **options: Any) -> "Module":
    if options["project"] == "secret":
      raise RuntimeError("no api key configured")
    self.runs.append(options)
    return self

  def log(self, values: dict[str, float], step: int) -> None:
    self.logged.append((step, values))

  def finish(self, exit_code: int) -> None:
    self.codes.append(exit_code)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Module:
  module = Module()
  monkeypatch.setitem(sys.modules, "wandb", module)
  return module


def test_a_resumed_run_is_the_same_run(tmp_path: Path, wandb: Module):
  for failed in (True, False):
    run = Wandb(tmp_path, "mine", {"seed": 3})
    run.write(5, {"train/loss": 1.0})
    run.close(failed=failed)
  other = Wandb(tmp_path, "another", {})
  other.close()
  first, second, third = wandb.runs
  assert first == second
  assert first["id"] != third["id"]
  assert first["resume"] == "allow"
  assert first["config"] == {"seed": 3}
  assert wandb.logged == [(5, {"train/loss": 1.0})] * 2
  assert wandb.codes == [1, 0, 0]


def test_only_runs_that_ask_for_it_use_it(tmp_path: Path, wandb: Module):
  config = base_config()
  kinds = [type(w).__name__ for w in open_writers(tmp_path, config, 0)]
  assert kinds == ["MetricsFile", "Events"]
  config.log.wandb = "mine"
  assert len(open_writers(tmp_path, config, 0)) == 3
  assert isinstance(open_writers(tmp_path, config, 0)[0], MetricsFile)


def test_what_is_not_there_is_refused_by_its_key(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wandb: Module
):
  with pytest.raises(ConfigError, match=r"log\.wandb='secret'.*\n.*no api key"):
    Wandb(tmp_path, "secret", {})
  monkeypatch.setitem(sys.modules, "wandb", None)
  check_wandb(None)
  with pytest.raises(ConfigError, match=r"log\.wandb='mine'.*\n.*pip install"):
    check_wandb("mine")
