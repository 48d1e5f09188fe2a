"""Choices among examples (held out, kept, mislabelled), fixed by a seed.

Every example draws a random number from (seed, purpose, position); a choice
takes the smallest. A larger choice therefore contains a smaller one, and two
purposes do not depend on each other.
"""

import enum

import numpy as np
from jaxtyping import Int, Int32, Int64, UInt64


class Purpose(enum.IntEnum):
  """The use of a draw. The numbers are part of every split: keep them."""

  TEST = 0
  VALIDATION = 1
  TRAIN_SUBSET = 2
  NOISY_EXAMPLES = 3
  NOISY_LABELS = 4
  PLACED_ELSEWHERE = 5
  PLACES = 6
  STORED_ORDER = 7


def draws(
  count: int, *, seed: int, purpose: Purpose
) -> UInt64[np.ndarray, " count"]:
  """Uniform 64-bit numbers, the same with every version of NumPy.

  NumPy keeps the raw output of a bit generator fixed, and `SeedSequence`;
  it makes no such promise for `Generator.permutation`.
  """
  return np.random.PCG64([seed, purpose]).random_raw(count)


def check_fraction(validation: float) -> None:
  """Refuses what is no fraction of the training split to hold out."""
  if not 0 <= validation < 1:
    raise ValueError(f"validation={validation} must be in [0, 1)")


def split_sizes(
  count: int, validation: float, train_examples: int | None
) -> tuple[int, int]:
  """The numbers of held-out and of training examples, of `count`."""
  held_out = round(validation * count)
  if validation and not 0 < held_out < count:
    raise ValueError(
      f"validation={validation} would hold out {held_out} of {count} training"
      " examples; it must hold out some and leave some"
    )
  left = count - held_out
  if train_examples is None:
    return held_out, left
  if not 0 < train_examples <= left:
    raise ValueError(
      f"train_examples={train_examples} must be 1 to the {left} training"
      " examples that are not held out"
    )
  return held_out, train_examples


def stratified(
  labels: Int[np.ndarray, " n"],
  count: int,
  keys: UInt64[np.ndarray, " n"],
) -> Int64[np.ndarray, " count"]:
  """Chooses `count` examples with the classes in proportion.

  A class of n_k among n examples gets count * n_k / n of them, rounded by the
  largest remainders (the lower class first where they tie): those with the
  smallest keys. Positions are ascending.
  """
  classes, sizes = np.unique(labels, return_counts=True)
  quotas, remainders = np.divmod(count * sizes, len(labels))
  missing = count - quotas.sum()
  quotas[np.argsort(-remainders, kind="stable")[:missing]] += 1
  by_key = np.argsort(keys, kind="stable")
  chosen = [
    by_key[labels[by_key] == label][:quota]
    for label, quota in zip(classes, quotas, strict=True)
  ]
  return np.sort(np.concatenate(chosen))


def complement(
  count: int, chosen: Int64[np.ndarray, " m"]
) -> Int64[np.ndarray, " rest"]:
  """The positions below `count` that are not in `chosen`, ascending."""
  return np.setdiff1d(np.arange(count), chosen, assume_unique=True)


def flip_labels(
  labels: Int[np.ndarray, " n"],
  fraction: float,
  num_classes: int,
  example_keys: UInt64[np.ndarray, " n"],
  label_keys: UInt64[np.ndarray, " n"],
) -> Int32[np.ndarray, " n"]:
  """Gives `round(fraction * n)` examples another class, uniformly chosen."""
  flipped = np.argsort(example_keys, kind="stable")
  flipped = flipped[: round(fraction * len(labels))]
  # 1 to K - 1 classes further, modulo K: never the same class.
  shifts = 1 + label_keys[flipped] % np.uint64(num_classes - 1)
  noisy = labels.copy()
  noisy[flipped] = (labels[flipped] + shifts.astype(np.int32)) % num_classes
  return noisy
