"""Folders of images and Parquet files, in memory and streamed."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from forgetsam import data
from forgetsam.data.formats import _parquet_split

COUNT = 30  # of each of two classes
STREAM = data.StreamOptions(
  mean=0.0,
  std=1.0,
  train_crop=data.RandomResizedCrop(size=4, area=(1, 1), aspect=(1, 1)),
  eval_crop=data.CenterCrop(short_side=None),
)


def png(value, size=(4, 4), mode="RGB"):
  file = io.BytesIO()
  color = value if mode == "L" else (value, 255 - value, 7)
  Image.new(mode, size, color).save(file, "PNG")
  return file.getvalue()


def make_folder(root, count=COUNT, **kind):
  """Grey level = 3 * number; bright ones are class b."""
  for number in range(2 * count):
    name = "ab"[number >= count]
    (root / name).mkdir(parents=True, exist_ok=True)
    (root / name / f"{number:03}.png").write_bytes(png(3 * number, **kind))
  return root


def make_parquet(path, numbers, names=("a", "b"), column="image"):
  rows = [{"bytes": png(3 * n), "path": f"{n}.png"} for n in numbers]
  labels = [int(n >= COUNT) for n in numbers]
  features = {"label": {"names": list(names), "_type": "ClassLabel"}}
  hub = {"info": {"features": features}}
  table = pa.table({column: rows, "label": labels})
  table = table.replace_schema_metadata({"huggingface": json.dumps(hub)})
  path.parent.mkdir(parents=True, exist_ok=True)
  pq.write_table(table, path, row_group_size=7)
  return path


@pytest.fixture(params=["folder", "parquet"])
def photos(request, tmp_path):
  if request.param == "folder":
    return make_folder(tmp_path / "photos")
  make_parquet(tmp_path / "photos" / "train-0.parquet", range(40))
  make_parquet(tmp_path / "photos" / "train-1.parquet", range(40, 60))
  return tmp_path / "photos"


def numbers_of(images):
  """The positions that images were made for, of red levels from 0 to 1."""
  return np.round(images[..., 0, 0, 0] * 255 / 3).astype(int)


def test_memory_and_stream_choose_the_same_examples(photos):
  choices = {"validation": 0.2, "split_seed": 1, "train_examples": 30}
  images = data.load(str(photos), **choices)
  streamed = data.stream(str(photos), STREAM, **choices)
  assert images.image_shape == (4, 4, 3)
  assert (images.num_classes, streamed.num_classes) == (2, 2)
  if (photos / "a").exists():  # or windows of sorted files would be of a class
    assert (np.diff(streamed.train.store.ids) < 0).any()
  for name in ("train", "validation", "test"):
    split, source = getattr(images, name), getattr(streamed, name)
    np.testing.assert_array_equal(numbers_of(split.images / 255), split.ids)
    np.testing.assert_array_equal(split.labels, split.ids >= COUNT)
    batches = list(source.eval_batches(batch_size=8))
    found = np.concatenate([numbers_of(b["image"]) for b in batches])
    counts = np.concatenate([b["mask"] for b in batches]) > 0
    assert sorted(found[counts]) == split.ids.tolist(), name
    labels = np.concatenate([b["label"] for b in batches])
    np.testing.assert_array_equal(labels[counts], found[counts] >= COUNT)


def test_streams_resume_and_say_what_they_read(photos):
  train = data.stream(str(photos), STREAM, validation=0.2).train
  plan = {"batch_size": 13, "seed": 3}  # one lane: a graph is soon made
  *_, batch = train.train_batches(**plan, start_step=2, num_steps=2)
  indices = train.train_indices(**plan, step=3)  # the second epoch's first
  np.testing.assert_array_equal(numbers_of(batch["image"]), indices)
  np.testing.assert_array_equal(batch["label"], indices >= COUNT)


def test_identity_changes_with_the_files(photos):
  def identities():
    return (
      data.load(str(photos)).identity,
      data.stream(str(photos), STREAM).identity,
    )

  before, again = identities(), identities()
  assert before == again
  assert before[0].name == before[1].name == str(photos)
  if (photos / "a").exists():
    (photos / "a" / "000.png").write_bytes(png(1))
  else:
    make_parquet(photos / "train-0.parquet", [1, *range(1, 40)])
  for one, other in zip(before, identities(), strict=True):
    assert one != other


def test_large_row_groups_are_sampled_once_and_not_streamed(
  tmp_path, monkeypatch
):
  path = make_parquet(tmp_path / "train.parquet", range(2 * COUNT))
  reads, read = [], pq.ParquetFile.read_row_group

  def counted(self, group, columns):
    reads.append(group)
    return read(self, group, columns)

  monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
  own = data.open_own(str(path))
  assert reads == [*range(9)]
  assert len(data.load(own).train) == 48
  monkeypatch.setattr(_parquet_split, "_MOST_GROUP_BYTES", 100)
  words = r"train\.parquet has a row group .*\n.*row_group_size=1000"
  with pytest.raises(data.DataError, match=words):
    data.stream(own, STREAM)


def test_splits_in_folders(tmp_path):
  for name, count in (("train", 6), ("val", 2), ("test", 3)):
    make_folder(tmp_path / name, count)
  (tmp_path / "test" / "b" / "notes.txt").write_text("no image")
  images = data.load(str(tmp_path), validation=0.5)
  sizes = [len(s) for s in (images.train, images.validation, images.test)]
  assert sizes == [12, 4, 6]
  assert len(data.load_split(str(tmp_path), "validation")) == 4
  scored = data.stream_split(str(tmp_path), None, STREAM)
  assert (len(scored), scored.num_classes) == (6, 2)
  assert list(scored.identity.splits) == ["test"]
  with pytest.raises(ValueError, match=r"no split 'best'.*train, validation"):
    data.stream_split(str(tmp_path), "best", STREAM)


def test_splits_in_parquet_names_and_folders(tmp_path):
  make_parquet(tmp_path / "data" / "train-00000-of-00001.parquet", range(60))
  make_parquet(tmp_path / "plain" / "test" / "0000.parquet", range(20, 40))
  images = data.load(str(tmp_path))
  assert (len(images.train), len(images.test)) == (60, 20)
  alone = tmp_path / "data" / "train-00000-of-00001.parquet"
  assert len(data.load(str(alone)).test) == 12


@pytest.mark.parametrize(
  ("names", "sizes"),
  [
    (("shapes_train", "shapes-test"), (4, 3)),
    (("a/partial-train/0", "a/partial-test/0"), (4, 3)),
    (("train-of-test", "test"), (4, 3)),
    (("0000", "0001"), (6, 1)),
    (("train", ".cache/test"), (3, 1)),
  ],
)
def test_splits_of_parquet_names(tmp_path, names, sizes):
  for name, count in zip(names, (4, 3), strict=True):
    numbers = range(COUNT - 2, COUNT - 2 + count)
    make_parquet(tmp_path / f"{name}.parquet", numbers)
  images = data.load(str(tmp_path))
  assert (len(images.train), len(images.test)) == sizes


def test_parquet_files_without_a_split_beside_others_are_refused(tmp_path):
  make_parquet(tmp_path / "train.parquet", range(60))
  make_parquet(tmp_path / "extra-train-or-test.parquet", range(60))
  with pytest.raises(data.DataError, match=r"extra.* no split beside.* train"):
    data.load(str(tmp_path))


def test_folders_named_after_splits_are_no_classes(tmp_path):
  make_folder(tmp_path / "training_set", 3)
  make_folder(tmp_path / "test_set", 2)
  images = data.load(str(tmp_path))
  assert (len(images.train), len(images.test)) == (6, 4)


def test_classes_are_all_folders_but_hidden_ones(tmp_path):
  make_folder(tmp_path, 3)
  (tmp_path / "b").rename(tmp_path / "_b")
  make_folder(tmp_path / "a" / ".thumbnails", 1)
  make_folder(tmp_path / "__MACOSX", 1)
  (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
  (tmp_path / "a" / "above").symlink_to(tmp_path)
  assert len(data.load(str(tmp_path), test=0.5).train) == 3


@pytest.mark.parametrize(
  ("break_it", "words"),
  [
    (lambda r: (r / "c").mkdir(), "c holds no images"),
    (lambda r: make_folder(r / "test", 1, size=(5, 4)), "holds a, b beside"),
    (
      lambda r: (make_folder(r / "train"), (r / "test").mkdir()),
      "holds a, b, no folders of classes in test beside train",
    ),
    (lambda r: (r / "a" / "000.png").write_bytes(b"?"), r"a/000\.png"),
    (
      lambda r: (r / "a" / "001.png").write_bytes(png(3)[:40]),
      r"example 1 cannot be used: .*/a/001\.png",
    ),
    (
      lambda r: (r / "a" / "001.png").write_bytes(png(3, (5, 4))),
      r"/a/001\.png is 5x4.*stream=true",
    ),
  ],
)
def test_broken_folders_are_named(tmp_path, break_it, words):
  make_folder(tmp_path, 3)
  break_it(tmp_path)
  with pytest.raises((data.DataError, ValueError), match=f"(?s){words}"):
    data.load(str(tmp_path))


def test_streams_crop_all_sizes_and_leave_out_broken_images(tmp_path):
  make_folder(tmp_path, 6)
  (tmp_path / "a" / "001.png").write_bytes(png(3, (9, 4)))
  (tmp_path / "a" / "002.png").write_bytes(png(6)[:-20])
  with pytest.raises(ValueError, match=r"differ in size.*short_side"):
    data.stream(str(tmp_path), STREAM)
  options = data.StreamOptions(
    mean=0.0,
    std=1.0,
    train_crop=STREAM.train_crop,
    eval_crop=data.CenterCrop(size=4, short_side=4),
  )
  train = data.stream(str(tmp_path), options).train
  with pytest.raises(data.DataError, match=r"example 2 .*/a/002\.png"):
    list(train.eval_batches(batch_size=8))
  (tmp_path / "a" / "002.png").write_text("no image")
  with pytest.raises(data.DataError, match=r"a/002\.png: it is no image"):
    data.stream(str(tmp_path), options)
  skipping = data.StreamOptions(**{**vars(options), "skip_corrupt": True})
  sources = data.stream(str(tmp_path), skipping)
  assert sources.left_out == 1
  assert len(sources.train) + len(sources.test) == 11
  list(sources.train.eval_batches(batch_size=8))


def test_grey_images_have_one_channel_unless_others_have_more(tmp_path):
  make_folder(tmp_path, 3, mode="L")
  assert data.load(str(tmp_path)).image_shape == (4, 4, 1)
  (tmp_path / "a" / "000.png").write_bytes(png(9))
  assert data.load(str(tmp_path)).image_shape == (4, 4, 3)


def test_classes_of_test_must_be_known(tmp_path):
  make_folder(tmp_path / "train", 3)
  make_folder(tmp_path / "test", 3)
  (tmp_path / "test" / "b").rename(tmp_path / "test" / "z")
  with pytest.raises(data.DataError, match="classes z, which the training"):
    data.load(str(tmp_path))


@pytest.mark.parametrize(
  ("table", "words"),
  [
    ({"picture": [1], "label": [0]}, "columns picture, label"),
    ({"image": [b"x"], "kind": [0]}, "columns image, kind"),
    ({"image": [b"x"], "label": [None]}, "row 0, has the label None"),
    ({"image": [b"x", b"y"], "label": [1, -1]}, r"without a label \(-1\)"),
    ({"image": [b"x"], "label": [1 << 40]}, "(?s)row 0.* below 1,000,000"),
    ({"image": [b"x"], "label": [True]}, "row 0, has the label True"),
    ({"image": [b"x"], "label": [0]}, "two or more"),
    ({"image": [{"bytes": None}] * 2, "label": [0, 1]}, "row 0: it has no byt"),
    ({"image": [b"x", b"y"], "label": [0, 1]}, "train.parquet, row 0"),
  ],
)
def test_broken_parquet_is_named(tmp_path, table, words):
  path = tmp_path / "train.parquet"
  pq.write_table(pa.table(table), path)
  with pytest.raises((data.DataError, ValueError), match=words):
    data.load(str(path))


def test_names_beside_numbers_of_classes_are_refused(tmp_path):
  make_parquet(tmp_path / "test.parquet", range(60))
  make_parquet(tmp_path / "train.parquet", range(60))
  table = pq.read_table(tmp_path / "train.parquet")
  table = table.set_column(1, "label", pa.array(["0", "1"] * 30))
  pq.write_table(table, tmp_path / "train.parquet")
  with pytest.raises(data.DataError, match=r"train\.parquet, row 0, .*'0'"):
    data.load(str(tmp_path))


def test_damaged_parquet_is_named(tmp_path):
  path = make_parquet(tmp_path / "train.parquet", range(60))
  path.write_bytes(path.read_bytes()[:-9])
  with pytest.raises(data.DataError, match=r"train\.parquet cannot be read"):
    data.load(str(path))


def test_names_of_classes_are_labels(tmp_path):
  rows = [png(3 * n) for n in range(6)]
  table = {"img": rows, "label": ["cat", "dog"] * 3}
  pq.write_table(pa.table(table), tmp_path / "one.parquet")
  images = data.load(str(tmp_path / "one.parquet"), test=0.34)
  assert images.num_classes == 2
  np.testing.assert_array_equal(images.train.labels, images.train.ids % 2)
