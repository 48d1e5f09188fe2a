"""Evaluation batches: every example once, the last batch padded and masked."""

from collections.abc import Iterator

import numpy as np

from forgetsam.data._normalization import PerChannel, channel_statistics
from forgetsam.data._split import Split


def eval_batches(
  split: Split, *, batch_size: int, mean: PerChannel, std: PerChannel
) -> Iterator[dict[str, np.ndarray]]:
  """Normalised batches of one size that hold every example once, in order.

  Args:
    split: the examples.
    batch_size: rows of every batch; it may exceed the split.
    mean: subtracted from the images scaled to [0, 1]; a number, or one per
      channel.
    std: divides them after that; a number, or one per channel.

  Returns:
    An iterator over {"image": float32 [b, h, w, c], "label": int32 [b],
    "mask": float32 [b]}. The mask is 1 for an example and 0 for padding, whose
    image and label are zeros.

  Raises:
    ValueError: where an argument does not fit.
  """
  if batch_size < 1:
    raise ValueError(f"batch_size={batch_size} must be at least 1")
  mean_, std_ = channel_statistics(mean, std, split.images.shape[-1])
  return _batches(split, batch_size, mean_, std_)


def _batches(
  split: Split, batch_size: int, mean: np.ndarray, std: np.ndarray
) -> Iterator[dict[str, np.ndarray]]:
  for start in range(0, len(split), batch_size):
    rows = slice(start, start + batch_size)
    images = split.images[rows].astype(np.float32)
    labels = split.labels[rows]
    padding = batch_size - len(labels)
    yield {
      "image": pad((images / np.float32(255) - mean) / std, padding),
      "label": pad(labels, padding),
      "mask": pad(np.ones(len(labels), np.float32), padding),
    }


def pad(array: np.ndarray, rows: int) -> np.ndarray:
  """Adds `rows` of zeros at the end."""
  return np.pad(array, [(0, rows)] + [(0, 0)] * (array.ndim - 1))
