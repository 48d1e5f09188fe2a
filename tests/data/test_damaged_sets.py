"""Sets whose own files are damaged say so, and what to do, when opened."""

import pytest

from forgetsam import data

OPTIONS = data.StreamOptions(
  mean=0.0,
  std=1.0,
  train_crop=data.RandomResizedCrop(size=8),
  eval_crop=data.CenterCrop(size=8, short_side=8),
  threads=1,
)


def stream(directory):
  return data.stream("tiny", OPTIONS, data_dir=directory)


def load(directory):
  return data.load("tiny", data_dir=directory)


def cut(file):
  file.write_text(file.read_text()[:90])


def empty(file):
  file.write_text("")


def other(file):
  file.write_text("{}")


@pytest.mark.parametrize("change", [cut, empty, other])
@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
def test_a_damaged_description_is_named(numbered_set, name, change):
  directory = numbered_set(4)
  change(directory / "tiny" / "1.0.0" / name)
  for use in (load, stream, lambda d: data.check_available("tiny", d)):
    with pytest.raises(data.DataError) as failed:
      use(directory)
    said = str(failed.value)
    assert f"'tiny' in {directory} cannot be opened" in said
    assert name in said
    assert "prepare it again" in said


def test_a_missing_description_is_named(numbered_set):
  directory = numbered_set(4)
  (directory / "tiny" / "1.0.0" / "dataset_info.json").unlink()
  with pytest.raises(data.DataError, match=r"dataset_info\.json"):
    stream(directory)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
  ("change", "said"),
  [(lambda file: file.unlink(), "is missing"), (empty, "is empty")],
  ids=["missing", "empty"],
)
def test_a_damaged_shard_is_named_before_anything_is_read(
  numbered_set, split, change, said
):
  directory = numbered_set(4, num_shards=2, fixed=True)
  [_, file] = sorted((directory / "tiny" / "1.0.0").glob(f"*-{split}.tf*"))
  change(file)
  with pytest.raises(data.DataError, match=f"{file} {said}.*\n.*prepare"):
    stream(directory)
  with pytest.raises(data.DataError, match=str(file)):
    load(directory)


def test_another_file_format_says_how_to_write_records(numbered_set):
  """In memory as well as streamed: tf.data cannot read ArrayRecords."""
  directory = numbered_set(4, fixed=True)
  file = directory / "tiny" / "1.0.0" / "dataset_info.json"
  text = file.read_text()
  file.write_text(text.replace('"tfrecord"', '"array_record"'))
  for use in (load, stream):
    with pytest.raises(ValueError, match=r"ARRAY_RECORD.*format=.tfrecord"):
      use(directory)
