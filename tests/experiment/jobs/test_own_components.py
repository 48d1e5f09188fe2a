"""Components of one's own: as the guide prints them, and in every job."""

import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from made_up_images import made_up
from markdown_pages import ROOT

from forgetsam.experiment import build as builders
from forgetsam.experiment.config import (
  check_config,
  parse_command_line,
)

CONFIG = """
from forgetsam.experiment import apply_variant, base_config

def get_config(variant="obf"):
  config = base_config()
  config.epochs, config.batch_size, config.micro_batch_size = 1, 16, 8
  config.data.train_examples, config.evaluation.batch_size = 32, 512
  config.schedule.warmup_epochs, config.log.every_steps = 0.0, 1
  config.model.name, config.model.options = "mine:Net", {"width": 3}
  return apply_variant(config, variant)
"""
NET = """
import flax.linen as nn

class Net(nn.Module):
  num_classes: int
  width: int

  @nn.compact
  def __call__(self, images):
    x = nn.relu(nn.Dense(self.width)(images.reshape(len(images), -1)))
    return nn.Dense(self.num_classes)(x)
"""


def examples() -> list[tuple[str, list[str]]]:
  """The page's files, each with the flags that use it."""
  page = (ROOT / "docs" / "own_components.md").read_text()
  found, code = [], ""
  for kind, block in re.findall(r"```(python|sh)\n(.*?)```", page, re.DOTALL):
    if kind == "python":
      code = block
    else:
      found.append((code, block.split()))
  return found


def step_of(config: Any) -> tuple[Any, dict[str, Any]]:
  """Checks and builds a configuration, and takes a step."""
  check_config(config, 1)
  images = made_up()
  run = builders.build_experiment(
    config, builders.build_sources(config, images)
  )
  state = run.create_state()
  (batch,) = run.train_batches(0, 1)
  return run, jax.device_get(run.train_step(state, batch, run.key)[1])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
  monkeypatch.setattr("forgetsam.data.check_available", lambda *_: None)
  monkeypatch.setattr(
    "forgetsam.experiment.build._experiment.num_devices", lambda: 1
  )
  (tmp_path / "config.py").write_text(CONFIG)
  (tmp_path / "mine.py").write_text(NET)
  return tmp_path


def config_of(folder: Path, *flags: str) -> Any:
  given = [f"--config={folder}/config.py:obf", "--workdir=x", *flags]
  return parse_command_line(given, ["train"]).config


@pytest.mark.parametrize(
  ("code", "flags"),
  examples(),
  ids=lambda x: x[0] if isinstance(x, list) else "",
)
def test_an_example_of_the_page_trains(
  code: str, flags: list[str], folder: Path
):
  assert len([line for line in code.splitlines() if line]) <= 10
  chosen = "model.name" in flags[0]
  (folder / "mine.py").write_text(code if chosen else f"{code}\n{NET}")
  config = config_of(folder, *flags)
  _, metrics = step_of(config)
  assert np.isfinite(metrics["loss"])
  assert not metrics["skipped"]
