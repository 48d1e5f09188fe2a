"""How far a measuring job has come, and how long it will take."""

import statistics
import sys
import time
from collections.abc import Callable, Mapping

from tqdm import tqdm

from forgetsam.experiment.run import duration, log_stage

_EVERY = 10.0  # seconds between lines


class Progress:
  """Counts the pieces of a job's work: a bar on a terminal, lines elsewhere.

  A kind's pieces take what half of those before took at most: the first one
  compiles, and between others something else may. Until a second is done, they
  take what their cost says.

  Args:
    job: what is done, in a line.
    plan: how many pieces of each kind there are.
    costs: what a piece takes relative to the other kinds'; 1 where not named.
    clock: tells seconds.
  """

  def __init__(
    self,
    job: str,
    plan: Mapping[str, int],
    costs: Mapping[str, float],
    clock: Callable[[], float] = time.perf_counter,
  ):
    self._job, self._clock = job, clock
    self._costs = {kind: costs.get(kind, 1.0) for kind in plan}
    self._left = dict(plan)
    self._all = self._cost()
    self._seconds: dict[str, list[float]] = {kind: [] for kind in plan}
    self._began = self._last = self._said = clock()
    self._bar = tqdm(
      total=1.0,
      disable=not sys.stderr.isatty(),
      bar_format="{percentage:3.0f}% |{bar}| {desc}",
    )

  def __enter__(self) -> "Progress":
    return self

  def __exit__(self, *_: object) -> None:
    self._bar.close()

  def done(self, kind: str) -> None:
    """Notes that a piece is done, and says so now and then."""
    now = self._clock()
    self._seconds[kind].append(now - self._last)
    self._last = now
    self._left[kind] = max(0, self._left[kind] - 1)
    text = f"{duration(self.seconds_left())} left"
    if not self._bar.disable:
      self._bar.set_description_str(text, refresh=False)
      self._bar.update(self.fraction() - self._bar.n)
    elif now - self._said >= _EVERY:
      self._said = now
      log_stage(
        f"{self._job}, {self.fraction():.0%}, {text}", now - self._began
      )

  def fraction(self) -> float:
    """How much of the work is done."""
    return 1 - self._cost() / self._all if self._all else 1.0

  def seconds_left(self) -> float:
    """Seconds that the pieces left will take."""
    known = {
      kind: statistics.median_low(seen)
      for kind, seen in self._seconds.items()
      if len(seen) > 1
    }
    firsts = {k: seen[0] for k, seen in self._seconds.items() if seen}
    found = known or firsts
    # Seconds of cost 1: of cheap pieces, most is not what their cost counts.
    unit = sum(found.values()) / (sum(self._costs[k] for k in found) or 1)
    each = {k: known.get(k, unit * self._costs[k]) for k in self._left}
    return sum(count * each[kind] for kind, count in self._left.items())

  def _cost(self) -> float:
    return sum(n * self._costs[kind] for kind, n in self._left.items())
