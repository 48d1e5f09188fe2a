"""Arrays beyond the limit are read row by row, and give the same batches."""

import dataclasses
import logging
import re
import tracemalloc
import weakref
import zipfile

import numpy as np
import pytest

from forgetsam import data
from forgetsam.data import _rows, _tensorflow

RNG = np.random.default_rng(0)
CLASSES = np.arange(60) % 3
TOKENS = RNG.integers(0, 7, (60, 6))
VECTORS = RNG.standard_normal((60, 5))
SETS = {
  "pixels": (
    {"image": RNG.integers(0, 256, (60, 5, 4), np.uint8), "label": CLASSES},
    {"mean": 0.5, "std": 0.2, "flip": True, "crop_padding": 1},
  ),
  "tokens": (
    {"x": TOKENS, "y": np.where(TOKENS > 1, TOKENS, -1)}
    | {"mask": (TOKENS > 1).astype(int)},
    {},
  ),
  "one_hot": (
    {"x": VECTORS, "y": np.eye(3)[CLASSES], "group": CLASSES, "mask": CLASSES},
    {},
  ),
}
NONE = 1e-9  # GiB


def save(folder, arrays):
  folder.mkdir(exist_ok=True)
  for name, array in arrays.items():
    np.save(folder / f"{name}.npy", array)
  return str(folder)


def load(name, limit, **choices):
  return data.load(name, validation=0.2, memory_limit=limit, **choices)


@pytest.mark.parametrize("kind", SETS)
def test_batches_and_identity_are_those_in_memory(kind, tmp_path, monkeypatch):
  monkeypatch.setattr(_rows, "_BLOCK_BYTES", 100)  # checks see many blocks
  arrays, processing = SETS[kind]
  name = save(tmp_path / kind, arrays)
  choices = {"label_noise": 0.3} if kind in ("pixels", "one_hot") else {}
  held, streamed = (load(name, limit, **choices) for limit in (None, NONE))
  assert (held.train.in_memory, streamed.train.in_memory) == (True, False)
  assert held.identity == streamed.identity
  held, streamed = (
    data.in_memory(images, **processing) for images in (held, streamed)
  )
  plan = {"batch_size": 8, "seed": 3, "start_step": 3, "num_steps": 9}
  for read in (
    lambda s: s.train.train_batches(**plan, shard=(1, 2)),
    lambda s: s.validation.eval_batches(batch_size=8),
    lambda s: s.test.eval_batches(batch_size=8, shard=(1, 2), groups=True),
  ):
    for one, other in zip(read(held), read(streamed), strict=True):
      assert one.keys() == other.keys()
      for column, values in one.items():
        assert values.dtype == other[column].dtype
        np.testing.assert_array_equal(values, other[column])


@pytest.mark.parametrize("place", ["files", "function"])
def test_no_more_than_some_rows_are_copied(
  place, tmp_path, monkeypatch, caplog
):
  caplog.set_level(logging.INFO)
  monkeypatch.setattr(_rows, "_BLOCK_BYTES", 2**17)
  arrays = {"x": np.zeros((1000, 1000)), "y": np.arange(1000) % 2}  # 8 MB
  name = save(tmp_path, arrays)
  tracemalloc.start()
  try:
    images = (
      load(name, NONE)
      if place == "files"
      else data.from_arrays(arrays, name="mine:f", memory_limit=NONE)
    )
    peak = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  assert peak < 2**21
  rows, seen = images.train.images, []

  def read(at):
    found = rows.read(at)
    seen.append(len(found))
    return found

  noted = dataclasses.replace(rows, read=read)
  split = dataclasses.replace(images.train, images=noted)
  next(data.train_batches(split, batch_size=8, seed=0, num_steps=2))
  next(data.eval_batches(split, batch_size=8))
  assert set(seen) == {8}
  assert f"{images.name} is streamed: its arrays take about 7.64" in caplog.text
  load(name, 1.0)
  assert f"{name} is held in memory: its arrays take" in caplog.text


def test_reading_ends_before_the_interpreter_does():
  numbers = data.import_tensorflow().data.Dataset.range(9)
  for taken in (0, 1):
    reading = _tensorflow.numpy_batches(numbers, threads=1, ahead=1)
    assert [int(next(reading)) for _ in range(taken)] == [0][:taken]
    held = weakref.ref(reading.gi_frame.f_locals["iterator"])
    _tensorflow._stop_reading()
    assert held() is None
    assert next(reading, None) is None


@pytest.mark.parametrize("limit", [None, NONE])
@pytest.mark.parametrize(
  ("name", "array", "words"),
  [
    ("x", np.where(np.arange(60)[:, None] > 41, np.inf, VECTORS), "90 values"),
    ("x", TOKENS + 2**31 * (np.arange(60)[:, None] > 41), "108 integers bey"),
    ("y", np.where(np.arange(60) == 42, np.nan, CLASSES), "1 values that"),
  ],
)
def test_the_file_and_the_first_bad_row_are_named(
  name, array, words, limit, tmp_path, monkeypatch
):
  monkeypatch.setattr(_rows, "_BLOCK_BYTES", 100)
  folder = save(tmp_path, {"x": VECTORS, "y": CLASSES, name: array})
  with pytest.raises(ValueError, match=rf"/{name}\.npy has {words}.* row 42\n"):
    load(folder, limit)


@pytest.mark.parametrize(
  ("changed", "words"),
  [
    ({"y": np.where(TOKENS == 6, -1, TOKENS)}, r"example 1 has label \["),
    ({"mask": -TOKENS}, "negative weights, the first in row"),
    ({"x": np.asfortranarray(VECTORS)}, r"x\.npy is stored column by column"),
    ({"y": TOKENS[:40]}, "60 inputs and 40 labels"),
    ({"group": TOKENS}, r"groups of int32 \[60, 6\]"),
  ],
)
def test_what_does_not_fit_is_named(changed, words, tmp_path):
  name = save(tmp_path, {"x": VECTORS, "y": TOKENS, **changed})
  with pytest.raises(ValueError, match=words):
    load(name, NONE)


def test_an_archive_beyond_the_limit_is_not_read(tmp_path, monkeypatch):
  path = tmp_path / "set.npz"
  arrays = {"x": np.zeros((1000, 1000)), "y": np.arange(1000) % 2}
  np.savez_compressed(path, **arrays)
  monkeypatch.setattr(np, "load", None)
  words = r"set\.npz holds 7.64 MiB.*\n.*memory_limit=0.001 .*folder of \.npy"
  with pytest.raises(ValueError, match=words) as refused:
    load(str(path), 0.001)
  command = re.search("`python -m zipfile (.*)`", str(refused.value))
  zipfile.main(command[1].split())
  assert not load(str(tmp_path / "set"), 0.001).train.in_memory
