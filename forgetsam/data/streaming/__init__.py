"""Sets that do not fit in memory, read by tf.data as they are needed."""

from forgetsam.data.streaming._adapters import corrupted_sets
from forgetsam.data.streaming._options import (
  CenterCrop,
  RandomResizedCrop,
  StreamOptions,
)
from forgetsam.data.streaming._stream import stream, stream_split
from forgetsam.data.streaming._streamed_split import StreamedSplit

__all__ = [
  "CenterCrop",
  "RandomResizedCrop",
  "StreamOptions",
  "StreamedSplit",
  "corrupted_sets",
  "stream",
  "stream_split",
]
