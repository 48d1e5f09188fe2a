"""Numbers of a run over its steps: time, and epoch means."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

# Beside the metrics of a task: what a step tells of itself, and evaluations of
# classifiers.
_OF_STEPS = frozenset(
  {
    *("loss", "perturbed_loss", "perturbation_norm"),
    *("grad_norm", "ascent_grad_norm"),
    *("learning_rate", "rho", "skipped_steps"),
    *("accuracy", "top5_accuracy", "ece", "count"),
  }
)


def own_metrics(names: Iterable[str]) -> list[str]:
  """The names that every run does not have, in order.

  Example:
    >>> own_metrics(["loss", "perplexity", "grad_norm"])
    ['perplexity']
  """
  return [name for name in names if name not in _OF_STEPS]


class Clock:
  """Wall seconds, summed over a run's sessions.

  What a killed session did after its last checkpoint is not in the sum.

  Args:
    started: `time.monotonic()` at the program's start; now, if None.
  """

  def __init__(self, started: float | None = None):
    self._started = time.monotonic() if started is None else started
    self.before = 0.0
    self.startup = 0.0

  def session(self) -> float:
    """Seconds since this session started."""
    return time.monotonic() - self._started

  def wall(self) -> float:
    """Seconds of this session and of those before it."""
    return self.before + self.session()

  def first_step(self) -> None:
    """Notes how long this session took until its first step was compiled."""
    self.startup = self.session()


class EpochMeans:
  """Means of the metrics over the steps of the current epoch so far.

  Args:
    steps_per_epoch: after so many steps the sums start again.
    record: what `record` returned, to continue from there to the bit.
  """

  def __init__(
    self, steps_per_epoch: int, record: Mapping[str, Any] | None = None
  ):
    self._steps_per_epoch = steps_per_epoch
    self._sums: dict[str, float] = dict(record["sums"]) if record else {}
    self._count: int = record["count"] if record else 0

  def add(self, step: int, metrics: Mapping[str, float]) -> None:
    """Adds the metrics of one step, counted from 0."""
    self.skip(step)
    for name, value in metrics.items():
      self._sums[name] = self._sums.get(name, 0.0) + value
    self._count += 1

  def skip(self, step: int) -> None:
    """Passes over a step, which has no metrics."""
    if step % self._steps_per_epoch == 0:
      self._sums, self._count = {}, 0

  def means(self) -> dict[str, float]:
    """The means over this epoch's steps."""
    return {name: total / self._count for name, total in self._sums.items()}

  def record(self) -> dict[str, Any]:
    """The sums as JSON can hold them, without loss."""
    return {"sums": dict(self._sums), "count": self._count}
