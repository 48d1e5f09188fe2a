"""Images in files of one's own, read as they are needed."""

import dataclasses
import functools
from typing import Any

import numpy as np

from forgetsam.data._batches import Sources, channel_statistics
from forgetsam.data._choices import Part, choose_parts
from forgetsam.data._errors import DataError
from forgetsam.data._identity import SetIdentity
from forgetsam.data.files import Agree, files_fingerprint
from forgetsam.data.formats import (
  FileSplit,
  ImageFiles,
  OwnSet,
  Pixels,
  image_files,
)
from forgetsam.data.streaming._options import StreamOptions
from forgetsam.data.streaming._streamed_split import StreamedSplit


def stream_files(
  own: OwnSet, options: StreamOptions, *, agree: Agree, **choices: Any
) -> Sources:
  """The splits of a set of one's own, chosen as in memory."""
  found, pixels = image_files(own)
  labels = {name: split.labels for name, split in found.splits.items()}
  if "train" in labels:
    parts = choose_parts(labels, **choices)
  else:
    name = "test" if "test" in labels else next(iter(labels))
    parts = {"test": Part(name, np.arange(len(labels[name])))}
  splits = {
    role: _streamed(found, pixels, part, options, agree, role == "train")
    for role, part in parts.items()
  }
  side = options.train_crop.size
  identity = _identify(found, {part.split for part in parts.values()}, agree)
  return Sources(
    str(own.path),
    len(found.classes),
    (side, side, pixels.channels),
    splits.get("train"),
    splits.get("validation"),
    splits["test"],
    sum(split.left_out for split in splits.values()),
    identity,
  )


def stream_files_split(
  own: OwnSet, split: str | None, options: StreamOptions, agree: Agree
) -> StreamedSplit:
  """One split of a set of one's own, to be scored; None takes its test split.

  Sets without one are scored on their validation split, or as a whole.
  """
  found, pixels = image_files(own)
  if split is None:
    names = ("test", "validation", "train")
    split = next(name for name in names if name in found.splits)
  if split not in found.splits:
    raise ValueError(
      f"{own.path} has no split {split!r}; its splits are"
      f" {', '.join(found.splits)}"
    )
  part = Part(split, np.arange(len(found.splits[split].labels)))
  streamed = _streamed(found, pixels, part, options, agree)
  return dataclasses.replace(
    streamed, identity=_identify(found, {split}, agree)
  )


def _streamed(
  found: ImageFiles,
  pixels: Pixels,
  part: Part,
  options: StreamOptions,
  agree: Agree,
  trains: bool = False,
) -> StreamedSplit:
  channel_statistics(options.mean, options.std, pixels.channels)
  if options.eval_crop.short_side is None and pixels.differ:
    raise ValueError(
      f"the images of {found.path} differ in size, {pixels.differ}: say what to"
      " resize the shorter side to (short_side)"
    )
  if part.split in pixels.broken and not options.skip_corrupt:
    raise DataError(
      f"{pixels.broken[part.split]}\n  allowed: an image that can be opened; or"
      " config.data.skip_corrupt=true, which leaves such examples out"
    )
  split = found.splits[part.split]
  split.check_stream()
  positions = split.shuffled(part.positions) if trains else part.positions
  records, store, parse = split.open(positions)
  streamed = StreamedSplit(
    name=split.name,
    records=records,
    parse=parse,
    image_shape=pixels.shape,
    num_classes=len(found.classes),
    multi_label=False,
    classes=None,
    options=options,
    store=store,
  )
  return streamed.without_corrupt(agree) if options.skip_corrupt else streamed


def _identify(found: ImageFiles, names: set[str], agree: Agree) -> SetIdentity:
  prints = {
    name: agree(functools.partial(_print, found.splits[name])) for name in names
  }
  return SetIdentity(str(found.path), prints, found.named_classes)


def _print(split: FileSplit) -> dict[str, Any]:
  records, store, parse = split.open(np.arange(len(split.labels)))
  content = files_fingerprint(records, parse, split.num_bytes, store)
  return {**content, "names_sha256": split.digest()}
