"""Runs on files and functions of one's own, in every job."""

import json
import logging
import re
import shutil
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from markdown_pages import ROOT
from ml_collections import config_dict
from PIL import Image

import main
from forgetsam import models
from forgetsam.experiment.build import (
  build_data,
  build_evaluation_sets,
  build_sources,
  is_streamed,
)
from forgetsam.experiment.config import (
  ConfigError,
  apply_overrides,
  base_config,
  check_config,
)
from forgetsam.experiment.run import DataRecord

CONFIG = """
from forgetsam.experiment import apply_variant, base_config

def get_config(variant="plain"):
  config = base_config()
  config.epochs, config.batch_size, config.micro_batch_size = 1, 16, 2
  config.evaluation.batch_size, config.model.hidden = 16, (4,)
  config.schedule.warmup_epochs, config.data.name = 0.0, "set.npz"
  return apply_variant(config, variant)
"""
FUNCTION = """
import numpy as np

def vectors(count=40, seed=0):
  rng = np.random.default_rng(seed)
  y = np.arange(count) % 2
  return rng.normal(y[:, None], size=(count, 3)), y

def images():
  y = np.arange(40) % 2
  return {"image": np.full((40, 4, 3), y[:, None, None], np.uint8), "label": y}

def made():
  from forgetsam import data
  return data.from_arrays(images(), name="another")

def sources():
  from forgetsam import data
  return data.in_memory(made(), mean=0.0, std=1.0)
"""


def save(path: Path, count: int = 120) -> None:
  labels = np.arange(count) % 2
  images = np.random.RandomState(0).randint(0, 256, (count, 4, 3))
  np.savez(path, x=images.astype(np.uint8), y=labels)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
  monkeypatch.chdir(tmp_path)
  (tmp_path / "mine.py").write_text(FUNCTION)
  (tmp_path / "config.py").write_text(CONFIG)
  save(tmp_path / "set.npz")
  return tmp_path


def run(*arguments: str) -> int:
  return main.run(list(arguments), time.monotonic())


def test_a_run_finds_its_file_from_anywhere(
  folder: Path,
  tmp_path_factory: pytest.TempPathFactory,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  workdir = f"--workdir={folder}/run"
  assert run("--config=config.py:sam", workdir) == 0
  config = json.loads((folder / "run" / "config.json").read_text())
  assert config["data"]["name"] == "set.npz"
  record = json.loads((folder / "run" / "data.json").read_text())
  assert record["set.npz"]["name"] == str(folder / "set.npz")
  other = tmp_path_factory.mktemp("elsewhere")
  monkeypatch.chdir(other)
  save(other / "others.npz")
  (other / "mine.py").write_text(FUNCTION)
  sets = "--config.evaluation.sets=others.npz@train,mine:images"
  assert run("--job=evaluate", workdir, sets) == 0
  scores = json.loads((folder / "run" / "evaluation.json").read_text())
  assert scores["last/others.npz@train/count"] == 120
  assert scores["last/mine:images/count"] == 8
  (folder / "moved").mkdir()
  (folder / "set.npz").rename(folder / "moved" / "set.npz")
  monkeypatch.chdir(folder / "moved")
  assert run("--job=evaluate", workdir) == 0
  record = json.loads((folder / "run" / "data.json").read_text())
  assert record["set.npz"]["name"] == str(folder / "moved" / "set.npz")
  save(folder / "moved" / "set.npz", 122)
  assert run("--job=evaluate", workdir) == 2
  assert "other content" in capsys.readouterr().err
  (folder / "moved" / "set.npz").unlink()
  assert run("--job=evaluate", workdir) == 2
  assert f"no file or folder {folder}/moved/set" in capsys.readouterr().err


def read(path: Path) -> dict[str, Any]:
  return json.loads(path.read_text())


def test_streamed_arrays_train_and_are_scored_as_in_memory(folder: Path):
  zipfile.main(["-e", "set.npz", "arrays"])
  flags = [
    *("--config=config.py", "--config.epochs=2"),
    *("--config.data.name=./arrays", "--config.checkpoint.every_steps=7"),
    *("--config.checkpoint.keep=3", "--config.data.flip=true"),
  ]
  limit = "--config.data.memory_limit=1e-7"
  assert run(*flags, "--workdir=held") == 0
  assert run(*flags, limit, "--workdir=run") == 0
  held, streamed = (
    {
      key: value
      for key, value in read(folder / name / "summary.json").items()
      if "seconds" not in key and key != "config_hash"
    }
    for name in ("held", "run")
  )
  assert held == streamed
  assert read(folder / "held/data.json") == read(folder / "run/data.json")
  (folder / "run" / "summary.json").unlink()
  shutil.rmtree(folder / "run" / "checkpoints" / "12")
  assert run(*flags, limit, "--workdir=run") == 0  # from the middle of an epoch
  resumed = read(folder / "run" / "summary.json")
  assert resumed["params_sha256"] == held["params_sha256"]
  sets = "--config.evaluation.sets=./arrays@train"
  assert run("--job=evaluate", "--workdir=run", sets) == 0
  scores = read(folder / "run" / "evaluation.json")
  assert scores["last/./arrays@train/count"] == 120


def config_of(name: str, *overrides: str) -> config_dict.ConfigDict:
  config = base_config()
  config.batch_size = 4
  config.data.name = name
  return apply_overrides(config, list(overrides))


def test_a_function_gives_the_data(folder: Path):
  config = config_of("mine:vectors", "--config.data.options.count=24")
  check_config(config, 1)
  sources = build_sources(config)
  assert sources.image_shape == (3,)
  assert (len(sources.train), len(sources.test)) == (17, 5)
  again = build_sources(config)
  assert (
    sources.identity
    == again.identity
    != build_data(
      config_of("mine:vectors", "--config.data.options.seed=1")
    ).identity
  )


@pytest.mark.parametrize(
  ("shape", "dtype", "said"),
  [
    ((40, 3, 8, 9), np.uint8, "3 rows and 9 channels"),
    ((40, 8, 8), np.int64, r"int32 \[8, 8\], which are taken as they are"),
    ((40, 8), np.int64, ""),
  ],
)
def test_arrays_that_look_like_other_images_are_noticed(
  folder: Path,
  shape: tuple[int, ...],
  dtype: type,
  said: str,
  caplog: pytest.LogCaptureFixture,
):
  np.savez(folder / "x.npz", x=np.zeros(shape, dtype), y=np.arange(40) % 2)
  build_sources(config_of("x.npz"))
  warned = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
  assert bool(warned) is bool(said)
  assert re.search(said, "".join(warned))


@pytest.mark.parametrize("name", ["mine:made", "mine:sources"])
def test_what_a_function_makes_is_found_again(folder: Path, name: str):
  config = config_of(name)
  record = DataRecord(folder / "run")
  record.check(name, build_sources(config).identity)
  pinned = record.pinned(config)
  assert pinned.data.name == name
  record.check(name, build_sources(pinned).identity)


def test_functions_are_scored_with_the_runs_options_and_checked(folder: Path):
  record = DataRecord(folder / "run")

  def score(count: int, classes: int = 2) -> int:
    config = config_of("mine:vectors", f"--config.data.options.count={count}")
    config.evaluation.sets = "mine:vectors@test"
    model = models.create("mlp", classes, hidden=(4,))
    [found] = build_evaluation_sets(config, model, None, record, classes)
    return len(found.source)

  with pytest.raises(ConfigError, match="3 classes; mine:vectors has 2"):
    score(24, classes=3)
  assert score(24) == 5
  with pytest.raises(ConfigError, match=r"(?s)sets=.*other content"):
    score(50)


def make_photos(folder: Path, root: str = "photos", names: str = "ab") -> Path:
  for name in names:
    (folder / root / name).mkdir(parents=True)
    for number in range(10):
      image = Image.new("L", (8, 8), number)
      image.save(folder / root / name / f"{number}.png")
  return folder / root


@pytest.mark.parametrize("stream", [False, True])
def test_other_photos_are_scored_where_classes_have_the_same_names(
  folder: Path, stream: bool
):
  make_photos(folder)
  make_photos(folder, "more")
  make_photos(folder, "others", "ac")
  config = config_of("./photos", f"--config.data.stream={stream}")
  record = DataRecord(folder / "run")
  record.check("./photos", build_sources(config).identity)
  model = models.create("mlp", 2, hidden=(4,))

  def count(name: str) -> int:
    config.evaluation.sets = name
    [found] = build_evaluation_sets(config, model, None, record, 2)
    return len(found.source)

  assert count("./photos") == count(str(folder / "photos")) == 4  # its test
  assert count("./photos@train") == count("./more") == 20
  with pytest.raises(ConfigError, match="1 is 'b' there, and 'c' here"):
    count("./others")


def test_files_stream_beyond_the_limit_and_say_so(
  folder: Path, caplog: pytest.LogCaptureFixture
):
  photos = make_photos(folder)
  caplog.set_level(logging.INFO)
  crops = [
    *("--config.data.image_size=6", "--config.evaluation.image_size=6"),
    "--config.evaluation.short_side=6",
  ]
  for limit, streamed in ((1.0, False), (1e-7, True)):
    size = f"--config.data.memory_limit={limit}"
    config = config_of("./photos", size, *crops)
    check_config(config, 1)
    assert is_streamed(config) is streamed
    side = 6 if streamed else 8
    assert build_sources(config).image_shape == (side, side, 1)
    word = "streamed" if streamed else "held in memory"
    assert f"./photos is {word}: decoded, its images" in caplog.text
  with pytest.raises(ConfigError, match=r"(?s)memory_limit=1e-07.*photos take"):
    build_data(config)
  config.data.label_noise = 0.5
  with pytest.raises(ConfigError, match=r"label_noise=0.5 .*\n.*photos is str"):
    build_sources(config)
  assert config_of(str(photos)).data.memory_limit == 2.0


@pytest.mark.parametrize("name", ["mine:vectors", "./arrays", "set.npz"])
def test_what_needs_a_set_in_memory_refuses_arrays_beyond_the_limit(
  folder: Path, name: str
):
  zipfile.main(["-e", "set.npz", "arrays"])
  config = config_of(name, "--config.data.memory_limit=1e-7")
  check_config(config, 1)
  with pytest.raises(ConfigError, match=rf"memory_limit=1e-07.*\n.*{name} tak"):
    build_data(config)
  if name != "set.npz":
    assert len(build_sources(config).train) > 20


@pytest.mark.parametrize(
  ("overrides", "words"),
  [
    (("data.name=photos",), "write './photos'"),
    (("data.name=none/there",), "Nor is there a folder"),
    (("data.name=./there",), "looked for in the working directory"),
    (("data.name=mine:nothing",), "data.name='mine:nothing'.*no 'nothing'"),
    (("data.name=mine:np",), "gives module"),
    (("data.name=mine:vectors", "data.stream=true"), "stream=True.*gives arr"),
    (("data.name=set.npz", "data.stream=true"), "set.npz holds arrays"),
    (("data.name=mine:vectors", "data.flip=true"), "data.flip=True.*no images"),
    (("data.name=mine:vectors", "data.mean=(0.1,)"), r"data.mean=\(0.1,\)"),
    (("data.name=set.npz", "data.test=0.0"), "test=0.0 would test on 0"),
  ],
)
def test_refusals_name_the_key(
  folder: Path, overrides: tuple[str, ...], words: str
):
  (folder / "photos").mkdir()
  name, *others = (f"--config.{text}" for text in overrides)
  config = config_of("digits", name, *others)

  def build() -> None:
    check_config(config, 1)
    build_sources(config)

  with pytest.raises(ConfigError, match=f"(?s){words}"):
    build()


def test_the_pages_examples_run(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  monkeypatch.chdir(tmp_path)
  page = (ROOT / "docs" / "own_data.md").read_text()
  arrays, function = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
  exec(arrays, {})
  (tmp_path / "stripes.py").write_text(function)
  photos = make_photos(tmp_path)
  images = [file.read_bytes() for file in sorted(photos.rglob("*.png"))]
  rows = [{"bytes": image, "path": None} for image in images]
  table = pyarrow.table({"image": rows, "label": [0] * 10 + [1] * 10})
  (tmp_path / "shapes").mkdir()
  pyarrow.parquet.write_table(table, tmp_path / "shapes" / "train-0.parquet")
  commands = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
  sizes = {}
  for command in commands:
    flags = [f for f in command.split() if f.startswith("--config.")]
    config = config_of("digits", *flags)
    check_config(config, 1)
    sources = build_sources(config)
    sizes[config.data.name] = (len(sources.train), sources.num_classes)
  assert sizes == {
    "./photos": (14, 2),
    "./shapes": (14, 2),
    "scans.npz": (144, 4),
    "stripes:load": (144, 4),
  }
