"""Arrays in files; damaged ones are named."""

import numpy as np
import pytest

from forgetsam import data

X, Y = np.eye(10, 3), np.arange(10) % 2


def save_npz(path):
  np.savez(path, x_train=X, y_train=Y, x_test=X[:4], y_test=Y[:4])


@pytest.fixture
def npz(tmp_path):
  save_npz(tmp_path / "set.npz")
  return tmp_path / "set.npz"


@pytest.fixture
def npy(tmp_path):
  folder = tmp_path / "arrays"
  folder.mkdir()
  np.save(folder / "images.npy", X)
  np.save(folder / "labels.npy", Y)
  return folder


def test_npz(npz):
  images = data.load(str(npz), validation=0.2)
  np.testing.assert_array_equal(images.train.images, X[images.train.ids])
  assert (len(images.train), len(images.validation), len(images.test)) == (
    *(8, 2),
    4,
  )
  assert images.identity.name == images.name == str(npz)


def test_npy_relative_to_the_working_directory(npy, monkeypatch):
  monkeypatch.chdir(npy.parent)
  images = data.load("./arrays", test=0.4)
  assert (len(images.train), len(images.test)) == (6, 4)
  assert data.prepared_name("./arrays") == str(npy)
  data.check_available("./arrays")


def test_damaged_files_are_named(npz, npy):
  content = npz.read_bytes()
  npz.write_bytes(content[: len(content) // 2])
  with pytest.raises(data.DataError, match=r"set\.npz .*was cut short"):
    data.load(str(npz))
  save_npz(npz)
  np.savez(npz, image=X, label=np.array([{}] * 10, object))
  with pytest.raises(data.DataError, match="array 'label', cannot be read"):
    data.load(str(npz))
  labels = npy / "labels.npy"
  labels.write_bytes(labels.read_bytes()[:-5])
  with pytest.raises(data.DataError, match=r"labels\.npy cannot be read"):
    data.load(str(npy))


@pytest.mark.parametrize("given", ["", "3.0.1"])
def test_a_folder_of_tfds_is_named_by_name_and_place(given, tmp_path):
  version = tmp_path / "mnist" / "3.0.1"
  version.mkdir(parents=True)
  (version / "dataset_info.json").write_text('{"name": "mnist"}')
  words = rf"prepared by TFDS.*\n.*name=mnist config.data.dir={tmp_path}$"
  with pytest.raises(data.DatasetNotFoundError, match=words):
    data.load(str(tmp_path / "mnist" / given))


def test_what_is_not_there_is_named(npy, monkeypatch):
  monkeypatch.chdir(npy.parent)
  (npy.parent / "zips").mkdir()
  np.savez(npy.parent / "zips" / "a.npz", x=X)
  for name, words in {
    "./zips": r"folder of \.npz files\n.* such as .*/zips/a\.npz",
    "./none": "no file or folder .*/none.* working directory",
    "none.npz": r"no file or folder .*/none\.npz",
    "arrays/images.npy": "is one array",
  }.items():
    with pytest.raises(data.DatasetNotFoundError, match=words):
      data.check_available(name)
