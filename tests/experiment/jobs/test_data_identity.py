"""A run stays with the data that it began with, or is refused by name."""

import json
import logging
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
from tiny_runs import ROOT, tiny
from versioned_sets import prepare

import forgetsam as fs
import main
from forgetsam.experiment.build import build_evaluation_sets, build_sources
from forgetsam.experiment.config import ConfigError, load_config_file
from forgetsam.experiment.run import DataRecord
from forgetsam.experiment.sweep import Runner

pytestmark = pytest.mark.slow


def run(arguments: list[str]) -> int:
  return main.run(arguments, time.monotonic())


def read(path: Path) -> dict[str, Any]:
  return json.loads(path.read_text())


def command(workdir: Path, data_dir: Path) -> list[str]:
  return tiny(
    workdir,
    data_dir,
    "--config.data.name=tiny",
    "--config.data.train_examples=none",
    "--config.epochs=1",
    variant="plain",
  )


@pytest.fixture(autouse=True, scope="module")
def _one_device() -> Iterator[None]:
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, "local_device_count", lambda: 1)
    yield


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
  """`data`, with one version, and `run`, trained on it."""
  folder = tmp_path_factory.mktemp("first")
  prepare(folder / "data")
  assert run(command(folder / "run", folder / "data")) == 0
  return folder


@pytest.fixture
def trained(first: Path, tmp_path: Path) -> Path:
  shutil.copytree(first, tmp_path, dirs_exist_ok=True)
  return tmp_path


def start_again(folder: Path) -> int:
  """The same command, where the last checkpoint was lost."""
  (folder / "run/summary.json").unlink(missing_ok=True)
  shutil.rmtree(folder / "run/checkpoints")
  return run(command(folder / "run", folder / "data"))


def job(name: str, folder: Path, *extra: str) -> int:
  if name == "train":
    return start_again(folder)
  place = f"--config.data.dir={folder / 'data'}"
  return run([f"--job={name}", f"--workdir={folder / 'run'}", place, *extra])


def test_the_run_says_what_it_was_trained_on(trained: Path):
  record = read(trained / "run/data.json")
  assert record["tiny"]["name"] == "tiny:1.0.0"
  splits = record["tiny"]["splits"]
  assert {name: split["examples"] for name, split in splits.items()} == {
    "train": 80,
    "test": 20,
  }
  assert read(trained / "run/config.json")["data"]["name"] == "tiny"
  _, _, config = fs.load_run(trained / "run")
  assert config.data.name == "tiny:1.0.0"


def test_a_newer_version_beside_it_changes_nothing(trained: Path):
  before = read(trained / "run/summary.json")
  prepare(trained / "data", "2.0.0", seed=1)
  assert job("evaluate", trained) == 0
  scores = read(trained / "run/evaluation.json")
  assert scores["last/test/loss"] == pytest.approx(before["test/loss"])
  assert start_again(trained) == 0
  after = read(trained / "run/summary.json")
  assert after["params_sha256"] == before["params_sha256"]
  assert after["config_hash"] == before["config_hash"]
  assert job("evaluate", trained, "--config.data.name=tiny:1.0.0") == 0


JOBS = ("train", "evaluate", "sharpness", "forgetting")


@pytest.mark.parametrize("name", JOBS)
def test_a_version_that_is_gone_is_refused(
  name: str, trained: Path, capsys: pytest.CaptureFixture[str]
):
  prepare(trained / "data", "2.0.0")
  shutil.rmtree(trained / "data/tiny/1.0.0")
  assert job(name, trained) == 2
  error = capsys.readouterr().err
  assert "config.data.name='tiny' is refused" in error
  assert "tiny:1.0.0; found is tiny:2.0.0" in error
  assert "another --workdir" in error


@pytest.mark.parametrize(
  ("name", "change"),
  list(zip(JOBS, ["label_shift", "seed"] * 2, strict=True)),
)
def test_a_set_that_was_rebuilt_is_refused(
  name: str,
  change: str,
  trained: Path,
  capsys: pytest.CaptureFixture[str],
):
  shutil.rmtree(trained / "data/tiny")
  prepare(trained / "data", **{change: 1})
  assert job(name, trained) == 2
  error = capsys.readouterr().err
  assert "config.data.name='tiny' is refused" in error
  assert "'train' of tiny:1.0.0 had other content, 80 " in error
  assert f"remove {trained / 'run/data.json'}" in error


def test_a_set_that_was_rebuilt_alike_is_the_same(trained: Path):
  shutil.rmtree(trained / "data/tiny")
  prepare(trained / "data")
  assert job("evaluate", trained) == 0


def test_a_run_that_does_not_know_says_so(
  trained: Path, caplog: pytest.LogCaptureFixture
):
  shutil.rmtree(trained / "data/tiny")
  prepare(trained / "data", "2.0.0")
  file = trained / "run/data.json"
  file.unlink()
  with caplog.at_level(logging.WARNING):
    assert job("evaluate", trained) == 0
  assert "tiny:2.0.0, which are used now" in caplog.text
  assert not file.exists()  # only training decides what a run is trained on
  assert start_again(trained) == 0
  assert read(file)["tiny"]["name"] == "tiny:2.0.0"


def test_a_streamed_set_is_recognised(tmp_path: Path):
  config = load_config_file(f"{ROOT}/configs/digits.py:plain")
  config.data.name, config.data.dir = "tiny", str(tmp_path / "data")
  config.data.stream, config.batch_size = True, 8
  prepare(tmp_path / "data")
  record = DataRecord(tmp_path)
  record.check("tiny", build_sources(config).identity)
  record.write()
  prepare(tmp_path / "data", "2.0.0", label_shift=1)
  record = DataRecord(tmp_path)
  record.check("tiny", build_sources(record.pinned(config)).identity)
  shutil.rmtree(tmp_path / "data/tiny/1.0.0")
  prepare(tmp_path / "data", label_shift=1)
  with pytest.raises(ConfigError, match=r"data\.name='tiny'(.|\n)*train"):
    record.check("tiny", build_sources(record.pinned(config)).identity)


def test_evaluation_sets_stay_what_they_were(trained: Path):
  """At their first scores, other sets are noted with what they were."""
  prepare(trained / "data", name="other")
  model, _, config = fs.load_run(trained / "run")
  config.data.dir = str(trained / "data")
  config.evaluation.sets = "other,tiny@train[:8]"
  record = DataRecord(trained / "run")
  build_evaluation_sets(config, model, None, record, 10)
  record.write()
  noted = read(trained / "run/data.json")
  assert noted["other"]["name"] == "other:1.0.0"
  assert set(noted["tiny"]["splits"]) == {"train", "test", "train[:8]"}
  shutil.rmtree(trained / "data/other")
  prepare(trained / "data", "1.0.0", seed=1, name="other")
  with pytest.raises(ConfigError, match=r"evaluation\.sets='other'(.|\n)*test"):
    build_evaluation_sets(config, model, None, DataRecord(trained / "run"), 10)
  shutil.rmtree(trained / "data/other")
  prepare(trained / "data", "2.0.0", name="other")
  with pytest.raises(
    ConfigError, match=r"evaluation\.sets(.|\n)*other:1\.0\.0"
  ):
    build_evaluation_sets(config, model, None, DataRecord(trained / "run"), 10)


def test_a_sweep_stays_with_its_data(
  tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
  workdir, folder = tmp_path / "sweep", tmp_path / "data"
  file, *rest = command(workdir, folder)
  config = load_config_file(file.removeprefix("--config="))
  config.data.name, config.data.dir = "tiny", str(folder)
  config.batch_size = 64
  workdir.mkdir()
  for version in ("1.0.0", "2.0.0"):
    prepare(folder, version, seed=int(version[0]))
    runner = Runner()
    runner.record = DataRecord(workdir)
    images = runner.images(config)
  assert images.identity is not None
  assert images.identity.name == "tiny:1.0.0"
  shutil.rmtree(folder / "tiny/1.0.0")
  file = file.rpartition(":")[0]
  sweep = ["--job=sweep", file, *rest, "--variants=plain", "--seeds=1"]
  assert run(sweep) == 2
  error = capsys.readouterr().err
  assert "config.data.name='tiny'" in error
  assert "tiny:1.0.0; found is tiny:2.0.0" in error
