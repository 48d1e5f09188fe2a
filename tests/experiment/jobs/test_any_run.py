"""Every job takes the run of every recipe, in memory and streamed."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
from ml_collections import config_dict
from tiny_runs import ROOT, tiny
from versioned_sets import prepare

import main
from forgetsam.experiment.config import config_to_dict, load_config_file
from forgetsam.experiment.run import write_json

pytestmark = pytest.mark.slow

RECIPES = [
  "biased_fashion_2k:obf",
  "char_lm:obf",
  "cheap_fashion_2k:obf",
  "cifar100_resnet18:plain,smoke",
  "cifar100_wrn28_10:sam,smoke",
  "cifar10_resnet18:asam_obf,smoke",
  "cifar10_wrn28_10:asam,smoke",
  "digits:gsam_obf",
  "fashion_mnist:sam",
  "fashion_mnist_2k:obf",
  "finetune_resnet50:cifar100_sam_obf,smoke",
  "finetune_vit_s32:cifar10_sam_obf,smoke",
  "imagenet_resnet101:plain,smoke",
  "imagenet_resnet50:sam_obf,smoke",
  "imagenet_vit_s16:sam,smoke",
  "imagenet_vit_s32:gsam_obf,smoke",
  "noisy_cifar10:gsam_obf",
  "noisy_cifar10_vit:obf",
  "noisy_digits:obf",
  "noisy_fashion_m:sam_m8",
  "regression:sam",
  "study_fashion:obf",
  "study_vit:obf",
]


@pytest.fixture(autouse=True, scope="module")
def _one_device() -> Iterator[None]:
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, "local_device_count", lambda: 1)
    yield


def run(*arguments: str) -> int:
  return main.run(arguments, time.monotonic())


class ReachedError(Exception):
  """A job has come as far as its data."""


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[config_dict.ConfigDict]:
  """The configurations that data are opened with; nothing is opened."""
  found: list[config_dict.ConfigDict] = []

  def stop(config: config_dict.ConfigDict, *_: Any, **__: Any) -> None:
    found.append(config)
    raise ReachedError

  def checkpoint(*_: Any, **__: Any) -> None:
    found.append(config_dict.ConfigDict())
    raise ReachedError

  jobs = "forgetsam.experiment.jobs"
  monkeypatch.setattr("forgetsam.data.check_available", lambda *_: None)
  monkeypatch.setattr(f"{jobs}._measuring.build_sources", stop)
  monkeypatch.setattr(f"{jobs}.train.build_experiment", stop)
  monkeypatch.setattr(f"{jobs}.evaluate.Checkpoints", checkpoint)
  return found


def test_the_recipes_are_all_here():
  files = {path.stem for path in (ROOT / "configs").glob("*.py")}
  with_jobs = {
    name
    for name in files
    if "def get_config" in (ROOT / f"configs/{name}.py").read_text()
  }
  assert {recipe.partition(":")[0] for recipe in RECIPES} == with_jobs


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_job_refuses_what_nobody_changed(
  recipe: str, tmp_path: Path, opened: list[config_dict.ConfigDict]
):
  file, _, variant = recipe.partition(":")
  command = f"{ROOT}/configs/{file}.py:{variant}"
  config = load_config_file(command)
  write_json(tmp_path / "config.json", config_to_dict(config))
  (tmp_path / "checkpoints").mkdir()
  workdir = f"--workdir={tmp_path}"
  assert run(f"--config={command}", workdir) == 1
  for job in ("evaluate", "sharpness", "forgetting"):
    assert run(f"--job={job}", workdir) == 1
    assert run(f"--job={job}", f"--config={command}", workdir) == 1
  assert len(opened) == 7
  measured, trained = opened[3], opened[0]
  assert trained.evaluation == config.evaluation
  expected = "bilinear" if config.data.stream else "bicubic"
  assert measured.evaluation.resize_method == expected


def test_a_run_is_measured_on_more_devices_than_it_could_train_on(
  tmp_path: Path,
  opened: list[config_dict.ConfigDict],
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  config = load_config_file(f"{ROOT}/configs/digits.py:obf")
  config.batch_size, config.micro_batch_size = 100, 50
  write_json(tmp_path / "config.json", config_to_dict(config))
  (tmp_path / "checkpoints").mkdir()
  monkeypatch.setattr(jax, "local_device_count", lambda: 8)
  for job in ("evaluate", "sharpness", "forgetting"):
    assert run(f"--job={job}", f"--workdir={tmp_path}") == 1
  assert len(opened) == 3
  odd = "--config.evaluation.batch_size=100"
  assert run("--job=evaluate", f"--workdir={tmp_path}", odd) == 2
  assert "config.evaluation.batch_size=100" in capsys.readouterr().err


SMALL = [
  "--config.data.name=tiny",
  "--config.data.train_examples=none",
  "--config.data.validation=0.3",
  "--config.data.image_size=8",
  "--config.batch_size=32",
  "--config.epochs=1",
  "--config.model.hidden=(4,)",
  "--config.evaluation.image_size=8",
  "--config.evaluation.short_side=8",
  "--config.sharpness.examples=20",
  "--config.sharpness.trace_samples=2",
  "--config.sharpness.density_samples=2",
  "--config.sharpness.lanczos_steps=2",
  "--config.forgetting.examples=20",
  "--config.forgetting.per_class=2",
  "--config.forgetting.repeats=2",
  "--config.forgetting.micro_batch_size=8",
]


@pytest.mark.parametrize(
  ("whole", "stream"),
  [
    pytest.param(False, True, id="opened-streamed"),
    pytest.param(True, True, id="streamed", marks=pytest.mark.long),
    pytest.param(True, False, id="in memory", marks=pytest.mark.long),
  ],
)
def test_every_job_on_a_run(
  whole: bool, stream: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  """Without the measures every day: they compile for a minute."""
  directory = prepare(tmp_path / "data")
  streams = f"--config.data.stream={stream}"
  assert run(*tiny(tmp_path / "run", directory, *SMALL, streams)) == 0
  workdir = f"--workdir={tmp_path / 'run'}"
  for job in ("evaluate", "sharpness", "forgetting"):
    if not whole and job != "evaluate":
      monkeypatch.setattr(
        f"forgetsam.experiment.jobs.{job}._measurer", lambda *_: lambda *_: {}
      )
    assert run(f"--job={job}", workdir) == 0
    name = "evaluation" if job == "evaluate" else job
    assert (tmp_path / f"run/{name}.json").exists()
