"""Image classification sets from TFDS, and the batches made of them.

`load` holds a set in memory; a set too large for that needs a path of its own
from TFDS to batches. `train_batches` and `eval_batches` read what `load` gives.
"""

from forgetsam.data._availability import DatasetNotFoundError, check_available
from forgetsam.data._eval_batches import eval_batches
from forgetsam.data._in_memory import load
from forgetsam.data._prefetch import prefetch_to_device
from forgetsam.data._split import ImageData, Split
from forgetsam.data._train_batches import steps_per_epoch, train_batches

__all__ = [
  "DatasetNotFoundError",
  "ImageData",
  "Split",
  "check_available",
  "eval_batches",
  "load",
  "prefetch_to_device",
  "steps_per_epoch",
  "train_batches",
]
