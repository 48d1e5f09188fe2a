"""What a user may choose about streamed images."""

import dataclasses
import os

from forgetsam.data._normalization import PerChannel
from forgetsam.data.streaming._crops import CenterCrop, RandomResizedCrop


@dataclasses.dataclass(frozen=True)
class StreamOptions:
  """What is done to encoded images on their way into batches.

  Attributes:
    mean: subtracted from the images scaled to [0, 1]; a number, or one per
      channel.
    std: divides them after that; a number, or one per channel.
    train_crop: the crops of training images.
    eval_crop: the crop of evaluation images. Sets that were corrupted at their
      final size are evaluated as they are.
    shuffle_buffer: records that shuffling holds in memory; ImageNet's have
      110 kB.
    skip_corrupt: whether each split is read once, to leave out what cannot be
      read or decoded. Without it, such an example is an error.
    threads: threads that decode; None takes one per CPU.

  Raises:
    ValueError: where a value is impossible.
  """

  mean: PerChannel
  std: PerChannel
  train_crop: RandomResizedCrop = dataclasses.field(
    default_factory=RandomResizedCrop
  )
  eval_crop: CenterCrop = dataclasses.field(default_factory=CenterCrop)
  shuffle_buffer: int = 8192
  threads: int | None = None
  skip_corrupt: bool = False

  def __post_init__(self) -> None:
    for name in ("shuffle_buffer", "threads"):
      value = getattr(self, name)
      if value is not None and value < 1:
        raise ValueError(f"{name}={value} must be at least 1")

  @property
  def num_threads(self) -> int:
    """`threads`, or the number of CPUs."""
    return self.threads or os.cpu_count() or 1
