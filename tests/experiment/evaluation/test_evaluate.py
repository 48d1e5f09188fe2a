"""Evaluation divides sums by what counts, a few batches at a time."""

import jax.numpy as jnp
import numpy as np
import pytest

from forgetsam.experiment.evaluation import FinishedStep, evaluate, rank


def sums(count, **values):
  """One batch's sums; two of 15 bins have something in them."""
  bins = {
    name: np.zeros(15, np.float32)
    for name in ("bin_count", "bin_confidence", "bin_correct")
  }
  for name, pair in values.items():
    if name in bins:
      bins[name][[4, 14]] = pair
    else:
      bins[name] = np.float32(pair)
  bins["count"] = np.float32(count)
  return {name: jnp.asarray(value) for name, value in bins.items()}


PARTS = [
  sums(
    3,
    loss=6.0,
    correct=1.0,
    correct_top5=3.0,
    bin_count=(2, 1),
    bin_confidence=(0.6, 0.95),
    bin_correct=(0, 1),
  ),
  sums(
    1,
    loss=2.0,
    correct=1.0,
    correct_top5=1.0,
    bin_count=(1, 0),
    bin_confidence=(0.3, 0),
    bin_correct=(1, 0),
  ),
]


def test_means_are_over_examples_not_batches():
  result = evaluate(lambda p, s, batch: batch, None, None, PARTS)
  # Bin 4: three examples, one right, mean confidence 0.3; bin 14: one, right.
  ece = 3 / 4 * abs(1 / 3 - 0.3) + 1 / 4 * abs(1 - 0.95)
  assert result == {
    "loss": 2.0,
    "accuracy": 0.5,
    "top5_accuracy": 1.0,
    "ece": pytest.approx(ece, rel=1e-6),
    "count": 4,
  }


def test_metrics_of_ones_own_are_means_by_weight():
  parts = [
    {"mse": jnp.float32(mse), "count": jnp.float32(count)}
    for mse, count in [(3.0, 1.5), (1.0, 0.25)]
  ]
  step = FinishedStep(
    lambda p, s, batch: batch,
    lambda means: means | {"rmse": means["mse"] ** 0.5},
  )
  result = evaluate(step, None, None, parts)
  mse = 4.0 / 1.75
  assert result == pytest.approx({"mse": mse, "rmse": mse**0.5, "count": 1.75})


def test_the_best_has_the_largest_accuracy_or_else_the_smallest_loss():
  accurate, sure = (
    {"accuracy": 0.9, "loss": 2.0},
    {"accuracy": 0.8, "loss": 0.1},
  )
  assert max(sure, accurate, {**accurate, "loss": 3.0}, key=rank) is accurate
  losses = [{"loss": 2.0, "mse": 0.1}, {"loss": 1.0, "mse": 0.3}]
  assert max(losses, key=rank) is losses[1]


def test_totals_are_kept_in_float64():
  """In float32 1e8 would swallow every 1 that follows."""
  part = sums(1, loss=1.0, correct=1.0, correct_top5=1.0)
  large = {**part, "loss": jnp.float32(1e8)}
  result = evaluate(lambda p, s, b: b, None, None, [large] + [part] * 99)
  assert result["loss"] == (1e8 + 99) / 100


class Watched:
  """A sum that notes when it is fetched."""

  def __init__(self, value, log, index):
    self.value, self.log, self.index = value, log, index

  def __array__(self, dtype=None, copy=None):
    self.log.append(("fetched", self.index))
    return np.asarray(self.value, dtype)


def test_at_most_two_batches_are_on_their_way():
  log = []

  def eval_step(params, model_state, batch):
    index = int(batch["index"])
    log.append(("dispatched", index))
    part = sums(1, loss=1.0, correct=1.0, correct_top5=1.0)
    return {**part, "count": Watched(part["count"], log, index)}

  batches = ({"index": jnp.array(i)} for i in range(6))
  result = evaluate(eval_step, None, None, batches)
  assert result["count"] == 6
  waiting, most = set(), 0
  for event, index in log:
    if event == "dispatched":
      waiting.add(index)
    else:
      waiting.discard(index)
    most = max(most, len(waiting))
  assert most == 2
  assert not waiting


def test_no_example_is_an_error():
  with pytest.raises(ValueError, match="at least one"):
    evaluate(lambda p, s, batch: batch, None, None, [])
  empty = sums(0, loss=0.0, correct=0.0, correct_top5=0.0)
  with pytest.raises(ValueError, match="at least one"):
    evaluate(lambda p, s, batch: batch, None, None, [empty])
