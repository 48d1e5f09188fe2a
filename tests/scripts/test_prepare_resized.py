"""The script that writes a set with smaller images."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.input_pipeline import prepare
from forgetsam import data
from scripts.prepare_resized import main, resized


def encoded(width: int, height: int, seed: int) -> bytes:
  rng = np.random.default_rng(seed)
  coarse = rng.integers(0, 255, (4, 4, 3), np.uint8)
  image = Image.fromarray(coarse).resize((width, height))
  file = io.BytesIO()
  image.save(file, "JPEG", quality=95)
  return file.getvalue()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A set of a small image and three large ones; labels are positions."""
  directory = tmp_path_factory.mktemp("whole")
  sides = [(30, 20), (160, 120), (120, 160), (200, 100)]
  prepare([encoded(*pair, i) for i, pair in enumerate(sides)], directory)
  return directory


def images(directory: Path) -> tuple[np.ndarray, np.ndarray]:
  crop = data.CenterCrop(16, 20, "bilinear")
  options = data.StreamOptions(mean=0.0, std=1.0, eval_crop=crop)
  split = data.stream_split("photos", "test", options, data_dir=directory)
  found, labels = data.first_examples(split, 4, batch_size=4)
  return np.asarray(found) * 255, np.asarray(labels)


def test_the_smaller_set_has_the_name_order_and_labels(
  whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
  command = ["--name=photos", "--short_side=40", "--processes=1"]
  command += [f"--data_dir={whole}", f"--output={tmp_path / 'small'}"]
  assert main(command) == 0
  assert f"--config.data.dir={tmp_path / 'small'}" in capsys.readouterr().out
  exact, labels = images(whole)
  found, same = images(tmp_path / "small")
  np.testing.assert_array_equal(labels, same)
  off = np.abs(found - exact).mean((1, 2, 3))
  assert off[labels == 0] == 0  # the small one's bytes
  assert 0 < off[labels != 0].min() <= off.max() < 3
  sizes = [folder.stat().st_size for folder in tmp_path.rglob("*.tfrecord*")]
  assert max(sizes) < max(f.stat().st_size for f in whole.rglob("*.tfrecord*"))
  assert main(command) == 2
  assert "holds" in capsys.readouterr().err


def test_a_broken_image_is_named(
  tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
  sound = encoded(160, 120, 0)
  prepare([sound, sound, sound[: len(sound) // 2]], tmp_path / "whole")
  command = ["--name=photos", "--short_side=40", "--processes=1"]
  command += [f"--data_dir={tmp_path / 'whole'}", f"--output={tmp_path}/small"]
  assert main(command) == 2
  said = capsys.readouterr().err
  assert "of 'photos' cannot be resized: image file is truncated" in said
  assert not list((tmp_path / "small").rglob("dataset_info.json"))


def test_sides_are_rounded_as_an_evaluation_rounds_them():
  small = Image.open(io.BytesIO(resized(256, 90, encoded(500, 375, 0))))
  assert small.size == (341, 256)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--name=nothing"], "'nothing' is not known"),
    (["--name=photos", "--short_side=0"], "--short_side=0 must be"),
    (["--name=photos", "--quality=101"], "--quality=101 must be"),
  ],
)
def test_what_cannot_be_is_refused(
  arguments: list[str],
  message: str,
  tmp_path: Path,
  capsys: pytest.CaptureFixture[str],
):
  places = [f"--output={tmp_path}", f"--data_dir={tmp_path}"]
  try:
    code = main([*arguments, *places])
  except SystemExit as end:
    code = end.code
  assert code == 2
  assert message in capsys.readouterr().err
