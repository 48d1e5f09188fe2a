"""Data sets, from TFDS or of one's own, and the batches made of them.

`load` holds a set in memory; `stream` reads it from disk as it is needed;
`from_arrays` takes any arrays. All come to `Sources`, whose splits give
batches: `in_memory` makes them of what `load` and `from_arrays` give.
"""

from forgetsam.data._batches import (
  BatchSource,
  Sources,
  first_batches,
  first_examples,
  steps_per_epoch,
)
from forgetsam.data._errors import DataError, DatasetNotFoundError
from forgetsam.data._identity import SetIdentity
from forgetsam.data._load import array_split, load, load_split
from forgetsam.data._memory_batches import (
  eval_batches,
  train_batches,
  train_positions,
)
from forgetsam.data._memory_source import MemorySource, in_memory
from forgetsam.data._prefetch import prefetch_to_device
from forgetsam.data._prepared import check_available, prepared_name
from forgetsam.data._search import source_directory
from forgetsam.data._split import ImageData, Split, mislabel
from forgetsam.data._tensorflow import import_tensorflow
from forgetsam.data.formats import OwnSet, from_arrays, open_own
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
  "OwnSet",
  "RandomResizedCrop",
  "SetIdentity",
  "Sources",
  "Split",
  "StreamOptions",
  "StreamedSplit",
  "array_split",
  "check_available",
  "corrupted_sets",
  "eval_batches",
  "first_batches",
  "first_examples",
  "from_arrays",
  "import_tensorflow",
  "in_memory",
  "load",
  "load_split",
  "mislabel",
  "open_own",
  "prefetch_to_device",
  "prepared_name",
  "source_directory",
  "steps_per_epoch",
  "stream",
  "stream_split",
  "train_batches",
  "train_positions",
]
