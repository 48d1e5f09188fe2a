"""The digits: what is in them, and where they are built."""

import hashlib
import os

import numpy as np
import pytest
from sklearn.datasets import load_digits

from forgetsam import data
from forgetsam.data import digits as digits_set
from forgetsam.data._prepared import prepared_builder


def sha256(array):
  return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def test_split_numbers_and_stratification():
  labels = load_digits().target
  positions = digits_set.split_positions(labels)
  train, test = positions["train"], positions["test"]
  assert (len(train), len(test)) == (1437, 360)
  np.testing.assert_array_equal(
    np.sort(np.concatenate([train, test])), np.arange(1797)
  )
  proportional = np.bincount(labels) * 360 / 1797
  assert np.all(np.abs(np.bincount(labels[test]) - proportional) < 1)


def test_split_is_fixed():
  positions = digits_set.split_positions(load_digits().target)
  assert sha256(positions["train"].astype("<i8")) == (
    "fdb9be7de42ddaba1ee6779632916ace7ddf78fc34f630d629aa11777cc775f1"
  )
  assert sha256(positions["test"].astype("<i8")) == (
    "daa129ae6e50b2f97b9c251b1a5d4a19c308c59f41ac1cf94a573edbf73ab889"
  )


def test_images_are_scikit_learns(digits_dir):
  loaded = data.load("digits", data_dir=digits_dir)
  source = load_digits()
  assert (loaded.num_classes, loaded.image_shape) == (10, (8, 8, 1))
  positions = digits_set.split_positions(source.target)
  for name in ("train", "test"):
    split = getattr(loaded, name)
    assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)
    expected = source.images[positions[name]][..., None]
    # 255/16 of a grey level is the step; rounding is half a level away.
    np.testing.assert_array_equal(
      split.images, np.floor(expected * 255 / 16 + 0.5)
    )
    np.testing.assert_array_equal(split.labels, source.target[positions[name]])
    np.testing.assert_array_equal(split.ids, np.arange(len(split)))
  assert loaded.train.images.max() == 255


def test_tfds_knows_the_name(digits_dir):
  import tensorflow_datasets as tfds

  _, info = tfds.load("digits", data_dir=digits_dir, with_info=True)
  assert info.splits["train"].num_examples == 1437
  assert "Kaynak" in info.citation


def test_second_use_reads_what_the_first_built(digits_dir, monkeypatch):
  def fail(*args, **kwargs):
    raise AssertionError("built again")

  monkeypatch.setattr(digits_set.Digits, "_split_generators", fail)
  assert len(data.load("digits", data_dir=digits_dir).train) == 1437


def test_default_directory(default_dirs, capfd):
  default, cache = default_dirs
  data.check_available("digits")
  assert not default.exists(), "the check must not build"
  builder = prepared_builder("digits", None)
  assert builder.data_path.is_relative_to(default)
  assert not cache.exists()
  assert capfd.readouterr().out == ""


def test_read_only_directory_is_passed_over(default_dirs, monkeypatch):
  default, cache = default_dirs
  default.mkdir()
  # Permissions do not bind the root user, who may run this test.
  monkeypatch.setattr(os, "access", lambda path, mode: path != default)
  builder = prepared_builder("digits", None)
  assert builder.data_path.is_relative_to(cache)


def test_read_only_default_builds_in_the_user_cache(default_dirs, caplog):
  default, cache = default_dirs
  default.touch(mode=0o777)  # A file: nothing can be written below it.
  data.check_available("digits")
  with caplog.at_level("INFO"):
    first = prepared_builder("digits", None)
  assert first.data_path.is_relative_to(cache)
  assert any(
    "Building" in record.message and str(cache) in record.message
    for record in caplog.records
  )
  assert prepared_builder("digits", None).data_path == first.data_path


@pytest.mark.parametrize("call", [data.check_available, data.load])
def test_given_directory_that_cannot_be_written(call, tmp_path):
  blocked = tmp_path / "file"
  blocked.touch()
  with pytest.raises(data.DatasetNotFoundError, match="data_dir") as error:
    call("digits", data_dir=blocked / "sets")
  assert str(blocked / "sets") in str(error.value)


def test_other_versions_do_not_exist(digits_dir):
  with pytest.raises(data.DatasetNotFoundError, match=r"one version, 1\.0\.0"):
    data.load("digits:2.0.0", data_dir=digits_dir)


def test_another_process_finishes_first(tmp_path, monkeypatch):
  original = digits_set.Digits._split_generators
  builds = []

  def overtaken(self, dl_manager):
    builds.append(self)
    if len(builds) == 1:
      digits_set.Digits(data_dir=tmp_path).download_and_prepare()
    return original(self, dl_manager)

  monkeypatch.setattr(digits_set.Digits, "_split_generators", overtaken)
  assert len(data.load("digits", data_dir=tmp_path).test) == 360
  assert len(builds) == 2
  assert [path.name for path in (tmp_path / "digits").iterdir()] == ["1.0.0"]


def test_failed_build_is_an_error(tmp_path, monkeypatch):
  def full_disk(self, dl_manager):
    raise OSError("no space left")

  monkeypatch.setattr(digits_set.Digits, "_split_generators", full_disk)
  with pytest.raises(OSError, match="no space left"):
    data.load("digits", data_dir=tmp_path)
