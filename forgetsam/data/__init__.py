"""Image classification sets from TFDS, and the batches made of them.

`load` holds a set in memory; `stream` reads it from disk as it is needed. Both
come to `Sources`, whose splits give batches: `in_memory` makes them of what
`load` gives.
"""

from forgetsam.data._availability import check_available
from forgetsam.data._errors import DataError, DatasetNotFoundError
from forgetsam.data._eval_batches import eval_batches
from forgetsam.data._first_examples import first_batches, first_examples
from forgetsam.data._in_memory import load, load_split
from forgetsam.data._label_noise import mislabel
from forgetsam.data._prefetch import prefetch_to_device
from forgetsam.data._sources import (
  BatchSource,
  MemorySource,
  Sources,
  in_memory,
)
from forgetsam.data._split import ImageData, Split
from forgetsam.data._train_batches import steps_per_epoch, train_batches
from forgetsam.data.streaming import (
  CenterCrop,
  RandomResizedCrop,
  StreamedSplit,
  StreamOptions,
  corrupted_sets,
  stream,
  stream_split,
)

__all__ = [
  "BatchSource",
  "CenterCrop",
  "DataError",
  "DatasetNotFoundError",
  "ImageData",
  "MemorySource",
  "RandomResizedCrop",
  "Sources",
  "Split",
  "StreamOptions",
  "StreamedSplit",
  "check_available",
  "corrupted_sets",
  "eval_batches",
  "first_batches",
  "first_examples",
  "in_memory",
  "load",
  "load_split",
  "mislabel",
  "prefetch_to_device",
  "steps_per_epoch",
  "stream",
  "stream_split",
  "train_batches",
]
