"""From the name of a TFDS set to its splits, read as they are needed."""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from forgetsam.data._batches import Sources, channel_statistics
from forgetsam.data._identity import SetIdentity, identify
from forgetsam.data._prepared import (
  class_features,
  manual_files,
  prepared_builder,
)
from forgetsam.data._search import PathLike
from forgetsam.data._subsets import check_fraction, split_sizes
from forgetsam.data.files import (
  Agree,
  Records,
  check_files,
  files_fingerprint,
  find_groups,
  find_records,
  group_parser,
  in_words,
  label_parser,
  parser,
  read_impossible_labels,
)
from forgetsam.data.formats import OwnSet, open_own
from forgetsam.data.streaming._adapters import (
  IMAGENET_R,
  Adapter,
  find_adapter,
)
from forgetsam.data.streaming._options import StreamOptions
from forgetsam.data.streaming._own_files import (
  stream_files,
  stream_files_split,
)
from forgetsam.data.streaming._streamed_split import StreamedSplit

if TYPE_CHECKING:
  import tensorflow_datasets as tfds


def _in_this_process(function: Any) -> Any:
  return function()


def stream(
  name: str | OwnSet,
  options: StreamOptions,
  *,
  data_dir: PathLike | None = None,
  validation: float = 0.0,
  train_examples: int | None = None,
  agree: Agree = _in_this_process,
  split_seed: int = 0,
  test: float = 0.2,
) -> Sources:
  """The splits of a set that is read from disk as it is needed.

  ImageNet is tested on its `validation` split, as everywhere. Of sets of one's
  own, the splits are those of `data.load`. A folder's images are shuffled as a
  whole, Parquet's rows as far as `options.shuffle_buffer` reaches.

  Args:
    name: a TFDS name; a path, as in `data.load`, but for arrays; or what
      `data.open_own` gives.
    options: what is done to the images.
    data_dir: the directory that holds prepared sets. None: TFDS's own rules.
    validation: fraction of the `train` split held out, 0 to below 1: the last
      examples, in the order in which TFDS shuffled them into files.
    train_examples: number of training examples, the first in that order; None
      takes all that are not held out.
    agree: with several processes, calls a function in one of them and gives
      its result to all: files and labels are looked through once.
    split_seed: as in `data.load`, of sets of one's own.
    test: as in `data.load`.

  Raises:
    DatasetNotFoundError: where the set is not on this machine.
    DataError: a file is missing, empty or damaged.
    ValueError: where the set, one of its labels or an argument does not fit.
  """
  check_fraction(validation)
  if (own := open_own(name)) is not None:
    return stream_files(
      own,
      options,
      agree=agree,
      validation=validation,
      test=test,
      split_seed=split_seed,
      train_examples=train_examples,
    )
  assert isinstance(name, str)  # an OwnSet is returned by now
  _, adapter = find_adapter(name)
  scored = stream_split(name, None, options, data_dir=data_dir, agree=agree)
  side = options.train_crop.size
  shape = (side, side, scored.image_shape[-1])
  if adapter.train is None:
    return Sources(
      name,
      scored.num_classes,
      shape,
      None,
      None,
      scored,
      scored.left_out,
      scored.identity,
    )
  whole = stream_split(
    name, adapter.train, options, data_dir=data_dir, agree=agree
  )
  held_out, used = split_sizes(len(whole), validation, train_examples)
  cut = len(whole) - held_out
  return Sources(
    name,
    scored.num_classes,
    shape,
    whole.part(0, used),
    whole.part(cut, len(whole)) if held_out else None,
    scored,
    whole.left_out + scored.left_out,
    _of_both(whole, scored),
  )


def stream_split(
  name: str | OwnSet,
  split: str | None,
  options: StreamOptions,
  *,
  data_dir: PathLike | None = None,
  agree: Agree = _in_this_process,
) -> StreamedSplit:
  """One split of a set that is read from disk as it is needed.

  Its labels are read first, all of them, or in splits beyond 2 GB the first
  ones of every file: 2 GB take seconds, and ImageNet minutes.

  Args:
    name: as in `stream`.
    split: TFDS's name of the split, such as "validation" or "train[:8192]";
      None takes the one that the set is scored on.
    options: what is done to the images.
    data_dir: as in `stream`.
    agree: as in `stream`.

  Raises:
    DatasetNotFoundError: where the set is not on this machine.
    DataError: a file is missing or empty.
    ValueError: where the set, one of its labels or an argument does not fit.
  """
  if (own := open_own(name)) is not None:
    return stream_files_split(own, split, options, agree)
  assert isinstance(name, str)  # as above
  full_name, adapter = find_adapter(name)
  builder = prepared_builder(full_name, data_dir)
  image, label = _find_features(builder.info, adapter)
  channel_statistics(options.mean, options.std, image.shape[-1])
  if not adapter.resize:
    as_it_is = dataclasses.replace(options.eval_crop, short_side=None)
    options = dataclasses.replace(options, eval_crop=as_it_is)
  if options.eval_crop.short_side is None and None in image.shape:
    raise ValueError(
      f"short_side=None takes images as they are, but those of {name!r} differ"
      " in size; say what to resize the shorter side to"
    )
  split = adapter.test if split is None else split
  records = _find_split(builder, split)
  num_bytes = builder.info.splits[split.split("[")[0]].num_bytes
  parse = parser(
    builder.info.features,
    adapter.label,
    multi_label_classes=label.num_classes if adapter.multi_label else None,
  )
  fingerprint = agree(lambda: files_fingerprint(records, parse, num_bytes))
  found = StreamedSplit(
    name=f"Split {split!r} of {builder.info.full_name}",
    records=records,
    parse=parse,
    image_shape=tuple(image.shape),
    num_classes=label.num_classes,
    multi_label=adapter.multi_label,
    classes=np.sort([label.str2int(x) for x in IMAGENET_R]).astype(np.int32)
    if adapter.subset
    else None,
    options=options,
    identity=identify(builder.info, {split: fingerprint}),
    **_grouped(builder.info.features, adapter),
  )
  if options.skip_corrupt:
    found = found.without_corrupt(agree)
  else:
    agree(lambda: check_files(found.records))
  _check_labels(found, builder, split, adapter.label, agree)
  return found


def _grouped(features: Any, adapter: Adapter) -> dict[str, Any]:
  groups = None if adapter.multi_label else find_groups(features)
  if groups is None:
    return {}
  parse = group_parser(features, adapter.label, groups)
  return {"groups": groups.names, "parse_groups": parse}


def _check_labels(
  found: StreamedSplit,
  builder: "tfds.core.DatasetBuilder",
  split: str,
  label: str,
  agree: Agree,
) -> None:
  whole = builder.info.splits[split.split("[")[0]]
  impossible = agree(
    lambda: read_impossible_labels(
      found.records,
      label_parser(builder.info.features, label),
      num_classes=found.num_classes,
      record_bytes=whole.num_bytes / max(1, whole.num_examples),
      threads=found.options.num_threads,
    )
  )
  if impossible:
    raise ValueError(in_words(found.name, impossible, found.num_classes))


def _of_both(train: StreamedSplit, test: StreamedSplit) -> SetIdentity:
  assert train.identity is not None
  assert test.identity is not None
  splits = {**train.identity.splits, **test.identity.splits}
  return test.identity._replace(splits=splits)


def _find_features(
  info: "tfds.core.DatasetInfo", adapter: Adapter
) -> "tuple[tfds.features.Image, tfds.features.ClassLabel]":
  image, label = class_features(info, adapter.label, adapter.multi_label)
  if image.np_dtype != np.uint8 or image.shape[-1] not in (1, 3):
    raise ValueError(
      f"{info.full_name} must hold grey or RGB images of uint8, and holds"
      f" {image.np_dtype} {image.shape}"
    )
  return image, label


def _find_split(builder: "tfds.core.DatasetBuilder", split: str) -> Records:
  splits = builder.info.splits
  if split.split("[")[0] not in splits:
    raise ValueError(
      f"{builder.info.full_name} has no split {split!r}; its splits are"
      f" {', '.join(splits)}. {manual_files(builder.name)}".rstrip()
    )
  try:
    records = find_records(builder, split)
  except (AssertionError, ValueError) as error:
    raise ValueError(
      f"split={split!r} of {builder.info.full_name} cannot be read: {error}"
    ) from error
  if not len(records.take):
    raise ValueError(f"split={split!r} of {builder.info.full_name} is empty")
  return records
