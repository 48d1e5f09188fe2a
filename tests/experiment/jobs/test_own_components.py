"""Components of one's own: as the guide prints them, and in every job."""

import json
import re
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from made_up_images import made_up
from markdown_pages import ROOT

import forgetsam as fs
import main
from forgetsam.experiment import build as builders
from forgetsam.experiment.config import (
  ConfigError,
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
  for module in ("_experiment", "_mesh"):
    monkeypatch.setattr(
      f"forgetsam.experiment.build.{module}.num_devices", lambda: 1
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


BAD = """
import jax, jax.numpy as jnp
import forgetsam as fs

def total(logits, labels):
  return logits.sum()

def stepwise(step):
  return 0.1 if step < 3 else 0.01

def two(step):
  return jnp.ones(2) * step

def mixed(ascent_grads, delta, grads, mix=0.5):
  return jax.tree.map(lambda g: mix * g, grads)

def cropped(images, key):
  return images[:, :4]

class Pair(Net):
  def __call__(self, images):
    return images.mean((1, 2, 3)), images
"""


@pytest.mark.parametrize(
  ("flags", "said"),
  [
    (
      ["ascent.name=mine:total"],
      r"ascent\.name='mine:total'.*\n.*ascent returns \(\)",
    ),
    (
      ["schedule.name=mine:stepwise"],
      r"stepwise'.*\n.*in mine\.py, line .*bool",
    ),
    (
      ["perturbation.rho_schedule=mine:two"],
      r"rho_schedule='mine:two'.*\n.*one number a step.*\(2,\)",
    ),
    (
      ["combine.name=mine:mixed", "combine.options.mix=(1,)"],
      r"mixed' are refused\n.*in mine\.py, line .*'tuple'",
    ),
    (["augmentation.name=mine:cropped"], "cropped' are refused\n.*shape"),
    (["model.name=mine:Pair"], r"loss\.name=.*\n.*fits the model's.*a tuple"),
    (["optimizer.train_only=nothing"], "matches none of Dense_0/bias"),
  ],
  ids=str,
)
def test_what_no_step_can_call_is_refused(
  flags: list[str], said: str, folder: Path
):
  (folder / "mine.py").write_text(NET + BAD)
  with pytest.raises(ConfigError, match=said):
    step_of(config_of(folder, *(f"--config.{flag}" for flag in flags)))


ALL = """
import jax, jax.numpy as jnp, numpy as np, optax
import forgetsam as fs
from flax import linen, nnx

class Net(nnx.Module):
  def __init__(self, num_classes, rngs, width):
    self.norm = nnx.BatchNorm(4, rngs=rngs)
    self.dense = nnx.Linear(4, width, rngs=rngs)
    self.head = nnx.Linear(width, num_classes, rngs=rngs)

  def __call__(self, x):
    return self.head(nnx.relu(self.dense(self.norm(x))))

def arrays(count):
  x = np.random.RandomState(0).normal(size=(count, 4)).astype(np.float32)
  return {"image": x, "label": (x[:, 0] > 0).astype(np.int32)}

def moved(images, key, std=0.1):
  return images + std * jax.random.normal(key, images.shape)

def scores(outputs, labels, where, num_classes):
  right = jnp.argmax(outputs, -1) == labels
  return {"accuracy": right, "chance": jnp.full(len(labels), 1 / num_classes)}

class Mixed:
  def both(ascent_grads, delta, grads):
    return jax.tree.map(lambda a, g: (a + g) / 2, ascent_grads, grads)
"""
HERE = """
def radius(rho, num_steps):
  return lambda step: rho * (1 - step / num_steps)
"""


def test_a_run_finds_its_modules_from_anywhere(
  tmp_path: Path,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  folders = {name: tmp_path / name for name in ("beside", "here", "else")}
  for folder in folders.values():
    folder.mkdir()
  (folders["beside"] / "config.py").write_text(CONFIG)
  (folders["beside"] / "mine.py").write_text(ALL)
  (folders["here"] / "local_parts.py").write_text(HERE)
  monkeypatch.chdir(folders["here"])
  flags = [
    "--config=../beside/config.py:sam",
    "--config.data.name=mine:arrays",
    "--config.data.options.count=64",
    "--config.augmentation.name=mine:moved",
    "--config.metric.name=mine:scores",
    "--config.combine.name=mine:Mixed.both",
    "--config.perturbation.rho_schedule=local_parts:radius",
    "--config.batch_size=16",
    "--config.micro_batch_size=2",
  ]
  run = f"--workdir={tmp_path / 'run'}"
  assert main.run([*flags, run], time.monotonic()) == 0, capsys.readouterr().err
  saved = json.loads((tmp_path / "run/config.json").read_text())
  assert saved["modules"] == [str(folders["beside"]), str(folders["here"])]
  assert saved["model"]["name"] == "mine:Net"
  summary = json.loads((tmp_path / "run/summary.json").read_text())
  assert summary["validation/chance"] == pytest.approx(0.5)
  monkeypatch.chdir(folders["else"])
  (folders["else"] / "mine.py").write_text("")  # another one of the name
  assert main.run([*flags, run], time.monotonic()) == 0  # it is complete
  evaluate = [*flags, run, "--job=evaluate"]
  assert main.run(evaluate, time.monotonic()) == 0
  assert main.run([run, "--job=evaluate"], time.monotonic()) == 0
  model, variables, config = fs.load_run(tmp_path / "run")
  assert config.model.options.width == 3
  logits = model.apply(variables, jnp.ones((2, 4)), train=False)
  assert logits.shape == (2, 2)
  (folders["beside"] / "mine.py").rename(folders["beside"] / "gone.py")
  capsys.readouterr()
  assert main.run([run, "--job=evaluate"], time.monotonic()) == 2
  said = capsys.readouterr().err
  assert "config.model.name='mine:Net' is refused" in said
  assert "a name in mine, which has no 'Net'" in said
