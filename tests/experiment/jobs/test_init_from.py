"""Fine-tuning: runs that start from other weights."""

import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import safetensors.numpy
from ml_collections import config_dict
from tiny_runs import ROOT, tiny

import forgetsam as fs
import main
from forgetsam import forgetting
from forgetsam.experiment.build import build_start
from forgetsam.experiment.config import ConfigError, load_config_file

pytestmark = pytest.mark.slow

VIT = {"width": 4, "depth": 1, "num_heads": 1}
VIT_FLAGS = [
  "--config.model.name=vit_tiny",
  "--config.model.hidden=none",
  *(f"--config.model.{key}={value}" for key, value in VIT.items()),
]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
  """A finished run of the tiny mlp."""
  workdir = tmp_path_factory.mktemp("first") / "run"
  assert main.run(tiny(workdir, data_dir), time.monotonic()) == 0
  return workdir


@pytest.fixture(scope="module")
def vit_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A vit_tiny for 7 classes of 16x16 grey images, in PyTorch's naming."""
  module = fs.models.create("vit_tiny", 7, **VIT)
  params, _ = fs.models.initialise(module, jax.random.key(3), (16, 16, 1))
  state = fs.interop.to_torch("vit_tiny", {"params": params}, **VIT)
  file = tmp_path_factory.mktemp("weights") / "vit.safetensors"
  safetensors.numpy.save_file(state, file)
  return file


def _config(**changes: Any) -> config_dict.ConfigDict:
  config = load_config_file(f"{ROOT}/configs/digits.py:plain")
  config.update_from_flattened_dict(
    {key.replace("__", "."): value for key, value in changes.items()}
  )
  return config


def _initial(name: str, classes: int, **options: Any) -> dict[str, Any]:
  module = fs.models.create(name, classes, **options)
  return fs.models.initialise(module, jax.random.key(0), (8, 8, 1))[0]


def _same(tree: Any, other: Any) -> None:
  jax.tree.map(np.testing.assert_array_equal, tree, other)


def test_without_it_the_models_own_weights_stay():
  params = _initial("mlp", 10)
  assert build_start(_config())(params, {})[0] is params


def test_a_run_starts_from_the_best_checkpoint_of_another(workdir: Path):
  trained = fs.load_run(workdir)[1]["params"]
  config = _config(init_from=str(workdir), model__hidden=(8,))
  params, _ = build_start(config)(_initial("mlp", 10, hidden=(8,)), {})
  _same(params, trained)
  # Another number of classes: all but the head.
  fresh = _initial("mlp", 3, hidden=(8,))
  params, _ = build_start(config)(fresh, {})
  _same(params, {**trained, "Head_0": fresh["Head_0"]})


def test_fine_tuning_a_run(workdir: Path, data_dir: Path, tmp_path: Path):
  arguments = tiny(
    tmp_path / "run",
    data_dir,
    f"--config.init_from={workdir}",
    # So slow that the weights hardly move.
    "--config.optimizer.learning_rate=1e-12",
    "--config.optimizer.weight_decay=0.0",
    variant="plain",
  )
  assert main.run(arguments, time.monotonic()) == 0
  tuned, trained = (
    fs.load_run(path)[1] for path in (tmp_path / "run", workdir)
  )
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), tuned, trained
  )


def test_a_fine_tuned_run_goes_on_without_what_it_started_from(
  workdir: Path,
  data_dir: Path,
  tmp_path: Path,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  def reached(*_: Any, **__: Any) -> None:
    raise FloatingPointError("all was checked")

  monkeypatch.setattr(forgetting, "probe_forgetting", reached)
  source, run = tmp_path / "first", tmp_path / "run"
  shutil.copytree(workdir, source)
  arguments = tiny(run, data_dir, f"--config.init_from={source}")
  assert main.run(arguments, time.monotonic()) == 0
  shutil.copytree(run, tmp_path / "copy")
  options = ("per_class=2", "examples=20", "micro_batch_size=8")
  small = [f"--config.forgetting.{option}" for option in options]
  measure = ["--job=forgetting", f"--workdir={tmp_path / 'copy'}", *small]
  assert main.run(measure, time.monotonic()) == 1
  assert "all was checked" in capsys.readouterr().err
  summary = run / "summary.json"
  before = json.loads(summary.read_text())
  shutil.move(source, tmp_path / "moved")
  summary.unlink()
  assert main.run(arguments, time.monotonic()) == 0
  assert "Resuming at step 10 of 10" in capsys.readouterr().out
  after = json.loads(summary.read_text())
  assert after["params_sha256"] == before["params_sha256"]
  # Without a checkpoint it has nothing to go on from.
  shutil.rmtree(run / "checkpoints")
  summary.unlink()
  assert main.run(arguments, time.monotonic()) == 2
  assert f"config.init_from='{source}'" in capsys.readouterr().err
  # Nor does it start from weights that took their place.
  assert main.run(tiny(source, data_dir, variant="sam"), time.monotonic()) == 0
  capsys.readouterr()
  for command in (arguments, measure):  # which measures them as untrained
    assert main.run(command, time.monotonic()) == 2
    error = capsys.readouterr().err
    assert f"config.init_from='{source}'" in error
    assert "'weights'" in error
    assert "another --workdir" in error


def test_fine_tuning_a_pytorch_file(
  vit_file: Path,
  data_dir: Path,
  tmp_path: Path,
  caplog: pytest.LogCaptureFixture,
):
  arguments = tiny(
    tmp_path / "run",
    data_dir,
    *VIT_FLAGS,
    f"--config.init_from={vit_file}",
    "--config.optimizer.learning_rate=1e-12",
    "--config.optimizer.weight_decay=0.0",
    variant="plain",
  )
  with caplog.at_level(logging.WARNING):
    assert main.run(arguments, time.monotonic()) == 0
  assert "head for 7 classes is replaced by a new one for 10" in caplog.text
  assert "interpolated from (4, 4) to (2, 2) patches" in caplog.text
  tuned = fs.load_run(tmp_path / "run")[1]["params"]
  given = fs.interop.from_torch("vit_tiny", vit_file, image_size=8, **VIT)
  for name in ("block0", "embedding", "norm"):
    jax.tree.map(
      lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6),
      tuned[name],
      given["params"][name],
    )


def test_a_folder_as_hugging_face_saves_it(
  vit_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
  timm = safetensors.numpy.load_file(vit_file)
  for kind in ("weight", "bias"):  # a class token, normalised before pooling
    timm[f"norm.{kind}"] = timm.pop(f"fc_norm.{kind}")
  token = timm["cls_token"] = np.ones((1, 1, 4), np.float32)
  timm["pos_embed"] = np.concatenate([token, timm["pos_embed"]], axis=1)
  safetensors.numpy.save_file(timm, tmp_path / "model.safetensors")
  description = tmp_path / "config.json"
  description.write_text('{"model_type": "vit", "num_attention_heads": 1}')
  options = {f"model__{key}": value for key, value in VIT.items()}
  config = _config(
    init_from=str(tmp_path),
    model__name="vit_tiny",
    model__hidden=None,
    **options,
  )
  initial = _initial("vit_tiny", 3, **VIT)
  with caplog.at_level(logging.WARNING):
    params, _ = build_start(config)(initial, {})
  given = fs.interop.from_torch("vit_tiny", vit_file, image_size=8, **VIT)
  _same(params, {**given["params"], "head": initial["head"]})
  assert "cls_token: left out" in caplog.text
  description.write_text('{"model_type": "vit", "num_attention_heads": 2}')
  with pytest.raises(
    ConfigError, match=r"init_from(.|\n)*num_attention_heads=2"
  ):
    build_start(config)(initial, {})


@pytest.mark.parametrize(
  ("init_from", "message"),
  [
    ("nowhere.safetensors", "is not a file"),
    (".", "holds no run|no checkpoint|config"),
  ],
)
def test_weights_that_are_not_there(init_from: str, message: str):
  with pytest.raises(
    ConfigError, match=rf"config\.init_from(.|\n)*({message})"
  ):
    build_start(_config(init_from=init_from))(_initial("mlp", 10), {})


def test_weights_of_another_model_are_listed(workdir: Path):
  config = _config(init_from=str(workdir), model__hidden=(6,))
  with pytest.raises(ConfigError, match=r"init_from(.|\n)*Dense_0/kernel \(64"):
    build_start(config)(_initial("mlp", 10, hidden=(6,)), {})


def test_weights_are_read_while_being_traced(workdir: Path):
  config = _config(init_from=str(workdir), model__hidden=(8,))
  initial = _initial("mlp", 10, hidden=(8,))
  traced, _ = jax.jit(lambda params: build_start(config)(params, {}))(initial)
  _same(traced, build_start(config)(initial, {})[0])
