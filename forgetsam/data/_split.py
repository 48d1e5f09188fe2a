"""Examples in memory: a split, a set, and labels made wrong on purpose."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float32, Int64, Shaped

from forgetsam.data import _subsets
from forgetsam.data._identity import SetIdentity
from forgetsam.data._rows import Rows, choose_rows


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """Examples of one split.

  Attributes:
    images: images `[n, height, width, channels]` of uint8, grey levels or
      colours, which batches hold normalised; or any other inputs, float32 or
      int32 with a row for each example, which batches hold as they are. Of
      arrays beyond `memory_limit`, `images[i:j]` and `images[positions]` read
      rows; so it is with labels and weights of more than one axis.
    labels: class numbers from 0, int32 `[n]`, or of each position `[n, ...]`;
      or float32 targets `[n, ...]`.
    ids: each example's position in the original split, ascending.
    weights: of the examples `[n]` or of the labels, which losses and metrics
      weigh them by; None weighs all alike.
    groups: whether each example is in a group, by the groups' names, where the
      set has any.
  """

  images: Shaped[np.ndarray | Rows, "n ..."]
  labels: Shaped[np.ndarray | Rows, "n ..."]
  ids: Int64[np.ndarray, " n"]
  weights: Float32[np.ndarray | Rows, "n ..."] | None = None
  groups: Mapping[str, Bool[np.ndarray, " n"]] = dataclasses.field(
    default_factory=dict
  )

  def __len__(self) -> int:
    return len(self.labels)

  @property
  def in_memory(self) -> bool:
    """Whether the arrays are held in memory, rather than read as needed."""
    columns = (self.images, self.labels, self.weights)
    return not any(isinstance(column, Rows) for column in columns)

  @property
  def has_pixels(self) -> bool:
    """Whether the inputs are images, to be normalised."""
    return self.images.dtype == np.uint8 and self.images.ndim == 4

  def take(self, positions: Int64[np.ndarray, " m"]) -> "Split":
    """The examples at `positions`, in that order, with their ids."""
    if np.array_equal(positions, np.arange(len(self))):
      return self
    weights = self.weights
    return Split(
      choose_rows(self.images, positions),
      choose_rows(self.labels, positions),
      self.ids[positions],
      None if weights is None else choose_rows(weights, positions),
      {name: mask[positions] for name, mask in self.groups.items()},
    )


@dataclasses.dataclass(frozen=True, eq=False)
class ImageData:
  """A set in memory, of images or of any other examples.

  Attributes:
    name: the name that it was loaded by.
    num_classes: number of classes K; labels are 0 to K - 1. Of float targets,
      how many numbers an example has.
    image_shape: height, width, channels; or the shape of another input.
    train: training examples, without those held out.
    validation: examples held out of training, or None.
    test: test examples, in their order.
    identity: what the set was, where it was read from files.
  """

  name: str
  num_classes: int
  image_shape: tuple[int, ...]
  train: Split
  validation: Split | None
  test: Split
  identity: SetIdentity | None = None


def mislabel(
  split: Split, fraction: float, *, num_classes: int, seed: int
) -> Split:
  """Gives a fraction of a split's examples another class.

  An example's draw depends on (seed, its id) alone. `load` does this to the
  training examples; do it to held-out ones, with the same fraction, where they
  are to be a control for what training examples do.

  Args:
    split: the examples.
    fraction: how many of them to change, 0 to 1; each other class is as likely.
    num_classes: number of classes K, at least 2.
    seed: seed of the draws; the `split_seed` of `load`.

  Returns:
    The same images and ids, with other labels.

  Raises:
    ValueError: an argument is out of its range.
  """
  if split.labels.ndim != 1 or split.labels.dtype != np.int32:
    raise ValueError(
      f"label_noise={fraction} needs one class for each example; the labels are"
      f" {split.labels.dtype} {list(split.labels.shape)}"
    )
  if num_classes < 2:
    raise ValueError(
      f"label_noise={fraction} needs another class to change a label to; the"
      f" set has {num_classes}"
    )
  if not 0 <= fraction <= 1:
    raise ValueError(f"label_noise={fraction} must be in [0, 1]")
  purposes = (_subsets.Purpose.NOISY_EXAMPLES, _subsets.Purpose.NOISY_LABELS)
  count = int(split.ids.max()) + 1 if len(split) else 0
  example_keys, label_keys = (
    _subsets.draws(count, seed=seed, purpose=purpose)[split.ids]
    for purpose in purposes
  )
  labels = _subsets.flip_labels(
    split.labels[:], fraction, num_classes, example_keys, label_keys
  )
  return dataclasses.replace(split, labels=labels)
