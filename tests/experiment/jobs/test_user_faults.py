"""Faults of data, settings and keys end in a sentence, before any training."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
from ml_collections import config_dict
from tiny_runs import tiny

from forgetsam import data
from forgetsam.experiment.jobs.evaluate import evaluate_run
from forgetsam.experiment.run import load_config, report_failure
from main import run as run_main

Arguments = Callable[..., list[str]]
STREAM = (
  *("--config.data.stream=true", "--config.data.image_size=8"),
  *("--config.evaluation.image_size=8", "--config.evaluation.short_side=8"),
)


@pytest.fixture
def digits(data_dir: Path, tmp_path: Path) -> Path:
  """The folder of the digits' files, to be changed."""
  data.load("digits", data_dir=data_dir)
  shutil.copytree(data_dir / "digits", tmp_path / "tfds" / "digits")
  return tmp_path / "tfds" / "digits" / "1.0.0"


def unlabel(split: str, step: int = 1) -> Callable[[Path], None]:
  """Changes the label of every `step`-th example of a split to -1."""

  def change(folder: Path) -> None:
    tf = data.import_tensorflow()
    [file] = folder.glob(f"*{split}.tfrecord*")
    records = list(tf.data.TFRecordDataset(str(file)).as_numpy_iterator())
    with tf.io.TFRecordWriter(str(file)) as writer:
      for number, record in enumerate(records):
        example = tf.train.Example.FromString(record)
        if number % step == step - 1:
          example.features.feature["label"].int64_list.value[:] = [-1]
        writer.write(example.SerializeToString())

  return change


def replace(name: str, old: str, new: str) -> Callable[[Path], None]:
  def change(folder: Path) -> None:
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new))

  return change


def cut(folder: Path) -> None:
  file = folder / "dataset_info.json"
  file.write_text(file.read_text()[:100])


def drop_test_file(folder: Path) -> None:
  [file] = folder.glob("*test.tfrecord*")
  file.unlink()


ONE = replace("features.json", '"numClasses": "10"', '"numClasses": "1"')
OTHER_FORMAT = replace("dataset_info.json", '"tfrecord"', '"array_record"')
NAME = "config.data.name='digits'"
SPOILED: dict[str, tuple[Any, tuple[str, ...], int, list[str]]] = {
  "no train label": (
    *(unlabel("train"), STREAM, 2),
    [NAME, "'train'", "example 0 is without a label (-1), and 1436 more"],
  ),
  "half of them": (
    *(unlabel("train", 2), STREAM, 2),
    [NAME, "'train'", "example 1 is without", "0 to 9"],
  ),
  "no test label": (
    *(unlabel("test"), STREAM, 2),
    [NAME, "'test'", "example 0 is without a label", "choose another"],
  ),
  "one class": (ONE, (), 2, [NAME, "num_classes=1", "two classes or more"]),
  "one class, streamed": (ONE, STREAM, 2, [NAME, "two classes or more"]),
  "array records": (
    *(OTHER_FORMAT, (), 2),
    [NAME, "ARRAY_RECORD", 'file_format="tfrecord"'],
  ),
  "cut description": (
    *(cut, (), 1),
    ["'digits' in", "dataset_info.json", "prepare it again"],
  ),
  "no description of features": (
    *(lambda folder: (folder / "features.json").unlink(), (), 1),
    ["'digits' in", "features.json is missing", "prepare it again"],
  ),
  "another count": (
    *(replace("dataset_info.json", '"1437"', '"1436"'), (), 1),
    ["'train'", "expected to contain 1436", "prepare it again"],
  ),
  "missing test file": (
    *(drop_test_file, STREAM, 1),
    ["test.tfrecord", "is missing", "copy the file again"],
  ),
}


@pytest.mark.parametrize(
  ("change", "extra", "code", "said"), SPOILED.values(), ids=SPOILED
)
def test_a_set_that_cannot_be_used_is_named(
  change: Callable[[Path], None],
  extra: tuple[str, ...],
  code: int,
  said: list[str],
  digits: Path,
  arguments: Arguments,
  tmp_path: Path,
  capsys: pytest.CaptureFixture[str],
):
  change(digits)
  place = f"--config.data.dir={tmp_path / 'tfds'}"
  assert run_main(arguments("obf", place, *extra), started=0.0) == code
  error = capsys.readouterr().err
  assert all(text in error for text in said), error
  assert "Traceback" not in error
  assert not (tmp_path / "run" / "config.json").exists()


CNN = ("--config.model.name=cnn", "--config.model.hidden=none")


@pytest.mark.parametrize(
  ("extra", "key"),
  [
    (["--config.micro_batch_size=1"], "config.micro_batch_size=1"),
    (
      ["--config.micro_batch_size=none", "--config.batch_size=8"],
      "config.micro_batch_size=None",
    ),
    (["--config.ascent.fraction=0.1"], "config.ascent.fraction=0.1"),
  ],
)
def test_one_example_is_too_few_for_batch_norm(
  extra: list[str],
  key: str,
  arguments: Arguments,
  capsys: pytest.CaptureFixture[str],
):
  """Eight devices share a batch; on digits, the last map has one pixel."""
  assert run_main(arguments("obf", *CNN, *extra), started=0.0) == 2
  error = capsys.readouterr().err
  assert f"{key} is refused" in error
  assert "more than one" in error
  assert "BatchNorm" in error


def test_without_batch_norm_one_example_is_enough(
  arguments: Arguments, monkeypatch: pytest.MonkeyPatch
):
  """As far as the checkpoints, which are opened before the first step."""

  def reached(*_: Any) -> None:
    raise FloatingPointError("checkpoints")

  monkeypatch.setattr("forgetsam.experiment.jobs.train.Checkpoints", reached)
  few = ["--config.micro_batch_size=1", "--config.model.batch_norm=false"]
  assert run_main(arguments("obf", *CNN, *few), started=0.0) == 1


@pytest.mark.parametrize("job", ["train", "sharpness"])
def test_no_more_eigenvalues_than_steps(
  job: str, arguments: Arguments, capsys: pytest.CaptureFixture[str]
):
  few = ["--config.sharpness.top=40", "--config.sharpness.lanczos_steps=4"]
  assert run_main(arguments("obf", f"--job={job}", *few), started=0.0) == 2
  error = capsys.readouterr().err
  assert "config.sharpness.top=40 is refused" in error
  assert "allowed: at most config.sharpness.lanczos_steps=4" in error


@pytest.fixture
def unfinished(
  finished: tuple[Path, dict[str, Any]], tmp_path: Path, data_dir: Path
) -> list[str]:
  """The command that goes on with a run that lacks its summary."""
  shutil.copytree(finished[0], tmp_path / "cut")
  (tmp_path / "cut" / "summary.json").unlink()
  return tiny(tmp_path / "cut", data_dir)


@pytest.fixture(params=["rbg", "x64"])
def other_setting(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
  """A setting of JAX's, and the one before it."""
  if request.param == "rbg":
    with jax.default_prng_impl("rbg"):
      yield "JAX_DEFAULT_PRNG_IMPL=rbg", "JAX_DEFAULT_PRNG_IMPL=threefry2x32"
  else:
    with jax.enable_x64(True):
      yield "JAX_ENABLE_X64=True", "JAX_ENABLE_X64=False"


def test_a_run_resumes_under_the_settings_that_it_began_with(
  unfinished: list[str],
  other_setting: tuple[str, str],
  tmp_path: Path,
  capsys: pytest.CaptureFixture[str],
):
  now, before = other_setting
  assert run_main(unfinished, started=0.0) == 2
  error = capsys.readouterr().err
  assert f"{now} is refused" in error
  assert f"allowed: {before}" in error
  assert not (tmp_path / "cut" / "damaged").exists()


@pytest.mark.parametrize(
  ("content", "said"),
  [
    ("{}", "without 'steps'"),
    ('{"steps": 1, "wall_seconds": null}', "without 'wall_seconds'"),
    (None, "Is a directory"),
  ],
)
def test_a_summary_that_no_run_wrote_is_refused_before_training(
  content: str | None,
  said: str,
  arguments: Arguments,
  tmp_path: Path,
  capsys: pytest.CaptureFixture[str],
):
  file = tmp_path / "run" / "summary.json"
  file.parent.mkdir()
  file.mkdir() if content is None else file.write_text(content)
  assert run_main(arguments(), started=0.0) == 2
  error = capsys.readouterr().err
  assert f"{file} is refused" in error
  assert said in error
  assert "another --workdir" in error


@pytest.mark.parametrize(
  "content",
  [
    *("{}", "[]", '{"sam": 1}', '{"sam": {}}'),
    *('{"sam": {"seeds": 3, "overrides": {}}}', '{"sam": {"seeds": [100]}}'),
  ],
)
def test_settings_that_no_sweep_wrote_are_refused(
  content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
  file = tmp_path / "best.json"
  file.write_text(content)
  sweep = ["--job=sweep", "--config=configs/digits.py", "--variants=sam"]
  place = [f"--workdir={tmp_path / 'sweep'}", f"--settings={file}"]
  assert run_main([*sweep, *place], started=0.0) == 2
  error = capsys.readouterr().err
  assert str(file) in error
  assert "'sam'" in error


@pytest.mark.parametrize(
  ("name", "content", "said"),
  [
    ("sweep.json", "{}", "without 'mode'"),
    ("runs/sam/seed=0.json", "{}", "without 'config'"),
    ("runs/sam/seed=0.json", '{"config": {}}', "without 'metrics'"),
  ],
)
def test_records_that_no_sweep_wrote_are_refused(
  name: str,
  content: str,
  said: str,
  tmp_path: Path,
  data_dir: Path,
  capsys: pytest.CaptureFixture[str],
):
  file = tmp_path / "sweep" / name
  file.parent.mkdir(parents=True)
  file.write_text(content)
  sweep = ["--job=sweep", "--config=configs/digits.py", "--variants=sam"]
  place = [f"--workdir={tmp_path / 'sweep'}", f"--config.data.dir={data_dir}"]
  small = ["--seeds=1", "--config.micro_batch_size=none"]
  assert run_main([*sweep, *place, *small], started=0.0) == 2
  error = capsys.readouterr().err
  assert f"{file} is refused" in error
  assert said in error


def test_weights_that_need_pytorch_say_so(
  arguments: Arguments,
  tmp_path: Path,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  monkeypatch.setitem(sys.modules, "torch", None)
  file = tmp_path / "weights.pth"
  file.write_bytes(b"")
  assert run_main(arguments("obf", f"--config.init_from={file}"), 0.0) == 2
  error = capsys.readouterr().err
  assert f"config.init_from='{file}' is refused" in error
  assert "pip install torch" in error


@pytest.mark.parametrize(
  "failure",
  [
    MemoryError("Unable to allocate 24 GiB for an array"),
    jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"),
  ],
)
def test_too_little_memory_names_what_needs_less(
  failure: Exception, capsys: pytest.CaptureFixture[str]
):
  assert report_failure(failure, None) == 1
  error = capsys.readouterr().err
  assert str(failure) in error
  assert "config.evaluation.batch_size" in error
  assert "report it" not in error


def test_devices_that_are_not_there_are_named(
  arguments: Arguments,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  def none() -> None:
    raise RuntimeError("Unable to initialize backend 'cuda'")

  monkeypatch.setattr(jax, "local_devices", none)
  monkeypatch.setenv("JAX_PLATFORMS", "cuda")
  assert run_main(arguments(), started=0.0) == 2
  error = capsys.readouterr().err
  assert "JAX_PLATFORMS='cuda' is refused" in error
  assert "such as cpu" in error


def test_a_frozen_configuration_is_evaluated_as_any(
  finished: tuple[Path, dict[str, Any]], data_dir: Path, tmp_path: Path
):
  shutil.copytree(finished[0], tmp_path / "run")
  config = load_config(tmp_path / "run")
  config.data.dir = str(data_dir)
  frozen = config_dict.FrozenConfigDict(config)
  results = evaluate_run(frozen, tmp_path / "run")
  assert results["last/test/accuracy"] == finished[1]["test/accuracy"]
