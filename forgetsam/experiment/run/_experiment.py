"""The functions and numbers of a run, with no configuration left to read."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
from jaxtyping import Array, Int64, Key

from forgetsam import data
from forgetsam.experiment.evaluation import beside_ema, evaluate_each
from forgetsam.training import TrainState, place


@dataclasses.dataclass(frozen=True)
class Intervals:
  """The steps between evaluations, checkpoints, log lines and probes."""

  evaluate: int
  checkpoint: int | None
  log: int
  probe: int


@dataclasses.dataclass(frozen=True)
class Experiment:
  """All that a run needs; `forgetsam.experiment.build` makes it.

  Attributes:
    sources: the splits of the data set.
    model: a Linen module.
    create_state: makes the first state; it allocates. With `fresh=False` its
      values are to be replaced, and nothing is read.
    train_step: `(state, batch, key) -> (state, metrics)`.
    eval_step: `(params, model_state, batch) -> sums`.
    train_batches: `(start, stop) -> batches` of these steps.
    train_indices: `step -> positions` of its batch's examples in the split.
    eval_batches: `split -> batches` that count every example once.
    key: the run's key, the same at every step.
    steps_per_epoch: updates in an epoch.
    num_steps: updates in the run.
    schedules: learning_rate, and rho where weights are perturbed, of the step.
    delta_examples: how many share a delta; None where weights are not
      perturbed.
    intervals: when to evaluate, save and log.
    keep: number of latest checkpoints to keep.
    skip_non_finite: whether to pass over steps that are not finite.
    watch_test: whether the loop also scores the test split, to be seen only.
    probe: `(params, model_state) -> scalars`, or None.
    profile: whether to trace a few steps.
  """

  sources: data.Sources
  model: nn.Module
  create_state: Callable[..., TrainState]
  train_step: Callable[..., tuple[TrainState, dict[str, Array]]]
  eval_step: Callable[..., dict[str, Array]]
  train_batches: Callable[[int, int], Iterator[dict[str, jax.Array]]]
  train_indices: Callable[[int], Int64[np.ndarray, " b"]]
  eval_batches: Callable[[data.BatchSource], Iterator[dict[str, jax.Array]]]
  key: Key[Array, ""]
  steps_per_epoch: int
  num_steps: int
  schedules: Mapping[str, optax.Schedule]
  delta_examples: int | None
  intervals: Intervals
  keep: int
  skip_non_finite: bool
  watch_test: bool
  probe: Callable[[Any, Any], dict[str, Array]] | None
  profile: bool

  def evaluate(self, variables: Any, split: str) -> dict[str, dict[str, float]]:
    """Scores what has `params`, `model_state` and `ema` on a split of the data.

    Returns:
      The scores under the split's name; with an average of the weights, its
      scores under `SPLIT/ema`.
    """
    ema = variables.ema
    if ema is not None:  # the optimizer's state may be spread over devices
      ema = place(ema, jax.tree.map(lambda x: x.sharding, variables.params))
    return evaluate_each(
      beside_ema({split: self.eval_step}, ema),
      variables.params,
      variables.model_state,
      self.eval_batches(getattr(self.sources, split)),
    )
