"""Fingerprints of splits, cheap beside reading them."""

import hashlib

import numpy as np

from forgetsam.data._identity import Fingerprint
from forgetsam.data._rows import blocks
from forgetsam.data._split import Split
from forgetsam.data._tensorflow import tf
from forgetsam.data.files._images import Parse
from forgetsam.data.files._records import Records, Store, in_order

# Of a split with more bytes, some examples of some files are read.
_WHOLE_BYTES = 2**25
_FILES, _EXAMPLES = 16, 512


def pixels_fingerprint(split: Split) -> Fingerprint:
  """Covers every pixel, or other number, and label; not how they are stored."""
  digest = hashlib.sha256()
  for column in (split.images, split.labels, split.weights):
    for _, block in () if column is None else blocks(column):
      digest.update(np.ascontiguousarray(block).data)
  if split.has_pixels:
    return {"examples": len(split), "pixels_sha256": digest.hexdigest()}
  columns = (split.images, split.labels)
  digest.update(repr([(str(c.dtype), c.shape) for c in columns]).encode())
  return {"examples": len(split), "arrays_sha256": digest.hexdigest()}


def files_fingerprint(
  records: Records, parse: Parse, num_bytes: int, store: Store | None = None
) -> Fingerprint:
  """Covers TFDS's sizes, and encoded images and labels of a small split.

  Of a large one it covers the first examples of files all over the split.
  """
  total = records.total
  sizes = [int(num_bytes), *records.take.tolist()]
  digest = hashlib.sha256(repr(sizes).encode())
  if not 0 < num_bytes <= _WHOLE_BYTES:  # TFDS writes 0 where it is unknown
    count = min(_FILES, len(records.take))
    rows = np.linspace(0, len(records.take) - 1, count).astype(int)
    some = Records(*(field[rows] for field in records))
    records = some._replace(take=np.minimum(some.take, _EXAMPLES // count))
  examples = in_order(records, store).map(
    tf.autograph.experimental.do_not_convert(parse)
  )
  found: str | None
  try:
    for image, label in examples.as_numpy_iterator():
      digest.update(hashlib.sha256(image).digest() + label.tobytes())
    found = digest.hexdigest()
  except tf.errors.OpError:  # whoever needs the example says which it is
    found = None
  return {"examples": total, "files_sha256": found}
