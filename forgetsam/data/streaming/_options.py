"""Options of streamed images: crops, normalisation, shuffling."""

import dataclasses
import math
import os

from forgetsam.data._batches import PerChannel

_METHODS = ("bilinear", "bicubic")


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop:
  """A training crop: random area, aspect and place, resized bilinearly.

  Attributes:
    size: height and width of the result, in pixels.
    area: lowest and highest share of the image's area.
    aspect: lowest and highest width / height; its logarithm is uniform.
    flip: whether to mirror half of the crops left to right.

  Raises:
    ValueError: where a value is impossible.
  """

  size: int = 224
  area: tuple[float, float] = (0.05, 1.0)
  aspect: tuple[float, float] = (3 / 4, 4 / 3)
  flip: bool = True

  def __post_init__(self) -> None:
    if self.size < 1:
      raise ValueError(f"size={self.size} must be at least 1 pixel")
    if not 0 < self.area[0] <= self.area[1] <= 1:
      raise ValueError(f"area={self.area} must be 0 < lowest <= highest <= 1")
    if not 0 < self.aspect[0] <= self.aspect[1] < math.inf:
      raise ValueError(f"aspect={self.aspect} must be 0 < lowest <= highest")


@dataclasses.dataclass(frozen=True)
class CenterCrop:
  """An evaluation crop: the middle of the image after a resize.

  Attributes:
    size: height and width of the result, in pixels.
    short_side: what the image's shorter side is resized to first; None takes
      the image as it is, which must then have the same size as all others.
    method: "bicubic" or "bilinear", both antialiased.

  Raises:
    ValueError: where a value is impossible.
  """

  size: int = 224
  short_side: int | None = 256
  method: str = "bicubic"

  def __post_init__(self) -> None:
    if self.size < 1:
      raise ValueError(f"size={self.size} must be at least 1 pixel")
    if self.short_side is not None and self.short_side < self.size:
      raise ValueError(
        f"short_side={self.short_side} must be at least size={self.size}, or"
        " None to take images as they are"
      )
    if self.method not in _METHODS:
      raise ValueError(f"method={self.method!r} must be one of {_METHODS}")


@dataclasses.dataclass(frozen=True)
class StreamOptions:
  """How encoded images become batches.

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
    fast_decode: whether JPEGs are decoded at a half, a quarter or an eighth of
      their size, as their format does it, where that leaves a crop no smaller
      than its result. Pixels then differ, by a few grey levels in the mean.

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
  fast_decode: bool = False

  def __post_init__(self) -> None:
    for name in ("shuffle_buffer", "threads"):
      value = getattr(self, name)
      if value is not None and value < 1:
        raise ValueError(f"{name}={value} must be at least 1")

  @property
  def num_threads(self) -> int:
    """`threads`, or the number of CPUs."""
    return self.threads or os.cpu_count() or 1
