"""Missing and unknown sets are refused at once, offline."""

import subprocess
import sys

import numpy as np
import pytest

from forgetsam import data


@pytest.mark.parametrize("call", [data.check_available, data.load])
def test_missing_set_names_it_the_place_and_the_command(call, tmp_path):
  with pytest.raises(data.DatasetNotFoundError) as error:
    call("cifar10", data_dir=tmp_path)
  message = str(error.value)
  assert "'cifar10' is not on this machine" in message
  assert f"\n  {tmp_path}\n" in message
  assert (
    "`tfds build cifar10`, which needs `pip install apache-beam`" in message
  )
  assert 'tfds.builder("cifar10").download_and_prepare()' in message


def test_missing_set_names_every_default_place(
  default_dirs, monkeypatch, tmp_path
):
  import tensorflow_datasets as tfds

  other = tmp_path / "other"
  monkeypatch.setattr(
    tfds.core.utils.file_utils, "_REGISTERED_DATA_DIRS", {other}
  )
  with pytest.raises(data.DatasetNotFoundError) as error:
    data.check_available("mnist")
  assert f"\n  {default_dirs[0]}" in str(error.value)
  assert f"\n  {other}" in str(error.value)


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("digitz", "not known to TFDS. Did you mean 'digits'"),
    ("fashion_mnst", "not known to TFDS. Did you mean 'fashion_mnist'"),
    ("qqqqqqqq", "not known to TFDS. No prepared set"),
    ("kaggle:mnist", "only TFDS's own"),
    ("no name", "not the name of a TFDS data set"),
    ("", "not the name of a TFDS data set"),
  ],
)
def test_unknown_names(name, message, tmp_path):
  with pytest.raises(data.DatasetNotFoundError) as error:
    data.check_available(name, data_dir=tmp_path)
  assert message in str(error.value)


def test_prepared_set_is_found_without_its_code(make_set):
  import tensorflow_datasets as tfds

  directory = make_set(
    {"image": tfds.features.Image(shape=(2, 2, 1))},
    {"train": [{"image": np.zeros((2, 2, 1), np.uint8)}]},
    name="of_my_own",
  )
  data.check_available("of_my_own", data_dir=directory)
  data.check_available("of_my_own:1.0.0", data_dir=str(directory))
  with pytest.raises(data.DatasetNotFoundError):
    data.check_available("of_my_own:2.0.0", data_dir=directory)
  with pytest.raises(data.DatasetNotFoundError):
    data.check_available("of_my_own", data_dir=directory / "elsewhere")


@pytest.mark.parametrize("config", [None, "grey"])
@pytest.mark.parametrize("files", [(), ("features.json",)])
@pytest.mark.parametrize("wanted", ["", ":*.*.*"])
def test_an_unfinished_newer_version_hides_none(
  wanted, files, config, make_set
):
  import tensorflow_datasets as tfds

  directory = make_set(
    {"image": tfds.features.Image(shape=(2, 2, 1))},
    {"train": [{"image": np.zeros((2, 2, 1), np.uint8)}]},
    config=config,
  )
  [whole] = directory.glob("tiny/**/1.0.0")
  for version in ("2.0.0", "1.0.1"):
    newer = whole.with_name(version)
    newer.mkdir()
    for file in files:
      (newer / file).write_text((whole / file).read_text())
  base = "tiny" if config is None else f"tiny/{config}"
  data.check_available(f"{base}{wanted}", data_dir=directory)
  found = data.prepared_name(f"{base}{wanted}", directory)
  assert found == f"{base}:1.0.0"
  refused = (data.DatasetNotFoundError, data.DataError)
  with pytest.raises(refused, match=r"tiny.*:2\.0\.0"):
    data.check_available(f"{base}:2.0.0", data_dir=directory)


def test_unfinished_set_is_not_available(make_set):
  import tensorflow_datasets as tfds

  directory = make_set(
    {"image": tfds.features.Image(shape=(2, 2, 1))},
    {"train": [{"image": np.zeros((2, 2, 1), np.uint8)}]},
  )
  (directory / "tiny" / "1.0.0").rename(
    directory / "tiny" / "incomplete.ABCDEF_1.0.0"
  )
  with pytest.raises(data.DatasetNotFoundError):
    data.check_available("tiny", data_dir=directory)


def test_the_check_needs_no_tensorflow(tmp_path):
  program = """
import sys
from forgetsam import data
assert "tensorflow_datasets" not in sys.modules, "imported with the package"
for name in ("cifar10", "no_such_set"):
  try:
    data.check_available(name, data_dir=sys.argv[1])
  except data.DatasetNotFoundError:
    continue
  raise SystemExit(f"{name} was found")
data.check_available("digits", data_dir=sys.argv[1])
assert "tensorflow" not in sys.modules, "imported by the check"
"""
  subprocess.run(
    [sys.executable, "-c", program, str(tmp_path)], check=True, timeout=60
  )
