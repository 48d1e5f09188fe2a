"""The first examples of a split, as they are scored, to measure networks on."""

import itertools
from collections.abc import Iterator

import numpy as np

from forgetsam.data._sources import BatchSource


def first_batches(
  source: BatchSource, count: int, *, batch_size: int
) -> Iterator[dict[str, np.ndarray]]:
  """Evaluation batches of a split's first examples.

  Args:
    source: the split.
    count: number of examples; all, where it has fewer.
    batch_size: rows of every batch.

  Returns:
    An iterator over batches as `eval_batches` gives them; "mask" is 0 for
    padding and for what comes after the first `count`.
  """
  batches = source.eval_batches(batch_size=batch_size)
  left = min(count, len(source))
  for batch in itertools.islice(batches, -(-left // batch_size)):
    used = np.arange(batch_size) < left
    yield {**batch, "mask": batch["mask"] * used}
    left -= batch_size


def first_examples(
  source: BatchSource, count: int, *, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
  """Images and labels of a split's first examples, without augmentation.

  Args:
    source: the split.
    count: number of examples; all, where it has fewer.
    batch_size: rows to read at a time.

  Returns:
    Float32 images `[n, h, w, c]`, normalised, and their labels.
  """
  batches = list(first_batches(source, count, batch_size=batch_size))
  keep = np.concatenate([batch["mask"] for batch in batches]) > 0
  images, labels = (
    np.concatenate([batch[name] for batch in batches])[keep]
    for name in ("image", "label")
  )
  return images, labels
