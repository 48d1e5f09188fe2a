"""Wrong labels, drawn once and for all."""

from forgetsam.data import _subsets
from forgetsam.data._split import Split


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
  if num_classes < 2:
    raise ValueError(
      f"label_noise={fraction} needs another class to change a label to; the"
      f" set has {num_classes}"
    )
  if not 0 <= fraction <= 1:
    raise ValueError(f"fraction={fraction} must be in [0, 1]")
  purposes = (_subsets.Purpose.NOISY_EXAMPLES, _subsets.Purpose.NOISY_LABELS)
  count = int(split.ids.max()) + 1 if len(split) else 0
  example_keys, label_keys = (
    _subsets.draws(count, seed=seed, purpose=purpose)[split.ids]
    for purpose in purposes
  )
  labels = _subsets.flip_labels(
    split.labels, fraction, num_classes, example_keys, label_keys
  )
  return Split(split.images, labels, split.ids)
