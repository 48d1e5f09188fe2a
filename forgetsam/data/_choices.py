"""Which examples of a set are trained on, held out, and tested on."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, Shaped

from forgetsam.data._rows import Rows
from forgetsam.data._subsets import (
  Purpose,
  check_fraction,
  complement,
  draws,
  split_sizes,
  stratified,
)

Positions = Int64[np.ndarray, " _"]


class Part(NamedTuple):
  """Some examples of a stored split, by their positions, ascending."""

  split: str
  positions: Positions


def choose(
  labels: Shaped[np.ndarray, "n ..."],
  *,
  validation: float,
  split_seed: int,
  train_examples: int | None,
) -> tuple[Positions, Positions | None]:
  """Positions to train on, and those held out, of a training split.

  Classes are in proportion, where each example has one.
  """
  if split_seed < 0:
    raise ValueError(f"split_seed={split_seed} must not be negative")
  check_fraction(validation)
  count, strata = len(labels), _strata(labels)
  num_held_out, num_train = split_sizes(count, validation, train_examples)
  train, held_out = np.arange(count), None
  if num_held_out:
    keys = draws(count, seed=split_seed, purpose=Purpose.VALIDATION)
    held_out = stratified(strata, num_held_out, keys)
    train = complement(count, held_out)
  if train_examples is not None:
    # Drawn for the whole split: what validation takes does not change the rest.
    keys = draws(count, seed=split_seed, purpose=Purpose.TRAIN_SUBSET)
    train = train[stratified(strata[train], num_train, keys[train])]
  return train, held_out


def choose_parts(
  labels: Mapping[str, Shaped[np.ndarray | Rows, "n ..."]],
  *,
  validation: float,
  test: float,
  split_seed: int,
  train_examples: int | None,
) -> dict[str, Part]:
  """Chooses what is trained on, held out and tested on of a set's splits.

  A set's own `validation` split takes the place of what would be held out, or
  of `test` where it has none; a set of `train` alone is split by `test`.
  """
  parts = {name: Part(name, np.arange(len(x))) for name, x in labels.items()}
  parts.setdefault("train", Part("train", np.arange(0)))
  if not len(parts["train"].positions):
    raise ValueError(
      f"there is no training split; its splits are {', '.join(labels)}"
    )
  positions, strata = parts["train"].positions, _strata(labels["train"])
  if "test" not in parts and "validation" in parts:
    parts["test"] = parts.pop("validation")
  if "test" not in parts:
    count = round(test * len(positions))
    if not 0 < count < len(positions):
      raise ValueError(
        f"test={test} would test on {count} of {len(positions)} examples: a set"
        " without a test split must give some up, and keep some"
      )
    keys = draws(len(positions), seed=split_seed, purpose=Purpose.TEST)
    chosen = stratified(strata, count, keys)
    parts["test"] = Part("train", chosen)
    positions = complement(len(positions), chosen)
  kept, held_out = choose(
    strata[positions],
    validation=0.0 if "validation" in parts else validation,
    split_seed=split_seed,
    train_examples=train_examples,
  )
  parts["train"] = Part("train", positions[kept])
  if held_out is not None:
    parts["validation"] = Part("train", positions[held_out])
  return parts


def _strata(labels: Shaped[np.ndarray | Rows, "n ..."]) -> Positions:
  """Each example's class; one for all where they have none, or several."""
  if labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer):
    return labels[:].astype(np.int64)
  return np.zeros(len(labels), np.int64)
