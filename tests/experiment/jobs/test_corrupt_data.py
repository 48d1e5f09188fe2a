"""A corrupt example ends a run in a sentence, or is counted and left out."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from forgetsam import data
from forgetsam.experiment.run import Loop
from main import run as run_main

pytestmark = pytest.mark.slow

Arguments = Callable[..., list[str]]
STREAM = (
  *("--config.data.stream=true", "--config.data.image_size=8"),
  *("--config.evaluation.image_size=8", "--config.evaluation.short_side=8"),
)
SKIP = "--config.data.skip_corrupt=true"


@pytest.fixture
def corrupt(data_dir: Path, tmp_path: Path) -> list[str]:
  """A folder of the digits whose third training image is corrupt."""
  from forgetsam.data import import_tensorflow

  tf = import_tensorflow()
  data.load("digits", data_dir=data_dir)
  shutil.copytree(data_dir / "digits", tmp_path / "tfds" / "digits")
  [file] = (tmp_path / "tfds" / "digits").rglob("*train.tfrecord*")
  records = list(tf.data.TFRecordDataset(str(file)).as_numpy_iterator())
  records[2] = records[2].replace(b"PNG", b"GNP")
  with tf.io.TFRecordWriter(str(file)) as writer:
    for record in records:
      writer.write(record)
  return [f"--config.data.dir={tmp_path / 'tfds'}"]


@pytest.mark.parametrize("stream", [(), STREAM])
def test_a_corrupt_example_ends_a_run_in_a_sentence(
  stream: tuple[str, ...],
  arguments: Arguments,
  corrupt: list[str],
  capsys: pytest.CaptureFixture[str],
):
  command = arguments("obf", *corrupt, *stream, "--config.epochs=6")
  assert run_main(command, started=0.0) == 1
  said = capsys.readouterr().err
  assert "example 2 cannot be used: record 2 of " in said
  assert "Traceback" not in said
  assert "function_node" not in said


def test_what_is_left_out_is_counted(
  arguments: Arguments, corrupt: list[str], tmp_path: Path
):
  command = arguments("obf", *corrupt, *STREAM, SKIP)
  assert run_main(command, started=0.0) == 0
  summary = json.loads((tmp_path / "run" / "summary.json").read_text())
  assert summary["skipped_examples"] == 1
  assert summary["steps"] == 10


def test_a_set_that_shrinks_between_two_starts_is_refused(
  arguments: Arguments,
  corrupt: list[str],
  data_dir: Path,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  """Another number of examples is another order: no resume would be exact."""
  save = Loop._save

  def end_at_five(self: Loop, done: int, *rest: object) -> None:
    save(self, done, *rest)  # type: ignore[arg-type]
    self.checkpoints.wait()
    raise FloatingPointError("cut off")

  whole = [f"--config.data.dir={data_dir}"]
  with monkeypatch.context() as patch:
    patch.setattr(Loop, "_save", end_at_five)
    assert run_main(arguments("obf", *whole, *STREAM, SKIP), started=0.0) == 1
  capsys.readouterr()
  assert run_main(arguments("obf", *corrupt, *STREAM, SKIP), started=0.0) == 2
  said = capsys.readouterr().err
  assert "trains on" in said
  assert "skip_corrupt" in said


def test_sets_in_memory_leave_nothing_out(
  arguments: Arguments, capsys: pytest.CaptureFixture[str]
):
  assert run_main(arguments("obf", SKIP), started=0.0) == 2
  said = capsys.readouterr().err
  assert "config.data.skip_corrupt=True" in said
  assert "config.data.stream=false" in said
