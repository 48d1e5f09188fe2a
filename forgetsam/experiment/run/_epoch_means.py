"""Running means of step metrics that a resumed run continues exactly."""

from collections.abc import Mapping
from typing import Any


class EpochMeans:
  """Means of the metrics over the steps of the current epoch so far.

  Args:
    steps_per_epoch: after so many steps the sums start again.
    record: what `record` returned, to continue from there.
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
