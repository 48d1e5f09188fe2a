"""How fast a run is, and how long it will take."""

import collections
import itertools
import math

_RECENT = 10  # intervals of steps, and pauses, that an estimate rests on


class Pace:
  r"""Estimates the seconds left from the latest steps and pauses.

  .. math:: (N - n) \, s + \sum_k m_k \, p_k

  with s the seconds per step over the last ten intervals, m_k the pauses of a
  kind that are left, and p_k the mean of its last ten. Pauses evaluate and
  save, or save alone. Compilation counts for neither: the first step is left
  out, and so is a kind's first pause as soon as there is a second; until then
  it counts at most half as long as the steps between two.

  Times are given in seconds of any clock.

  Args:
    stop: N, the run's steps.
    evaluate: steps between evaluations.
    checkpoint: steps between saves beside them, or None.

  Example:
    >>> pace = Pace(stop=100, evaluate=50)
    >>> pace.begin(1, now=30.0)  # the first step has compiled for 30 s
    >>> pace.steps(11, now=40.0)
    >>> pace.left(11) is None, pace.rate()
    (False, 1.0)
    >>> pace.left(11)  # 89 s; nothing is known of the two pauses yet
    89.0
  """

  def __init__(self, stop: int, evaluate: int, checkpoint: int | None = None):
    self._stop, self._evaluate, self._checkpoint = stop, evaluate, checkpoint
    self._mark: tuple[int, float] | None = None
    self._paused: int | None = None
    self._steps = collections.deque[tuple[int, float]](maxlen=_RECENT)
    # One more: the first is left out.
    self._pauses = [
      collections.deque[float](maxlen=_RECENT + 1) for _ in range(2)
    ]

  def begin(self, done: int, now: float) -> None:
    """Notes that the step after `done` begins, if none has before."""
    self._mark = self._mark or (done, now)

  def steps(self, done: int, now: float) -> None:
    """Notes that `done` steps have run."""
    assert self._mark is not None
    since, start = self._mark
    if done > since:
      self._steps.append((done - since, now - start))
      self._mark = done, now

  def resume(self, done: int, now: float) -> None:
    """Leaves out what has happened since `done` steps had run."""
    self._mark = done, now

  def pause(self, done: int, began: float, ended: float) -> None:
    """Notes a pause after `done` steps."""
    evaluates = done % self._evaluate == 0 or done == self._stop
    self._pauses[0 if evaluates else 1].append(ended - began)
    self._paused = done
    self.resume(done, ended)

  def rate(self) -> float | None:
    """Steps per second, pauses aside; None before the second step."""
    steps, seconds = map(sum, zip(*self._steps or [(0, 0.0)], strict=True))
    return steps / max(seconds, 1e-9) if steps else None

  def left(self, done: int) -> float | None:
    """Seconds until the last step and its pause; None where `rate` is."""
    rate = self.rate()
    if rate is None:
      return None
    if done == self._stop:
      return 0.0
    every = (self._evaluate, self._checkpoint or self._evaluate)
    pauses = sum(
      count * self._seconds(seen, 0.5 * between / rate)
      for count, seen, between in zip(
        self._pauses_left(done), self._pauses, every, strict=True
      )
      if seen
    )
    return (self._stop - done) / rate + pauses

  @staticmethod
  def _seconds(seen: collections.deque[float], most: float) -> float:
    if len(seen) == 1:
      return min(seen[0], most)
    return sum(itertools.islice(seen, 1, None)) / (len(seen) - 1)

  def _pauses_left(self, done: int) -> tuple[int, int]:
    before = done if done == self._paused else done - 1

    def multiples(every: int) -> int:
      return (self._stop - 1) // every - before // every

    evaluations = multiples(self._evaluate) + 1  # the last step's
    if self._checkpoint is None:
      return evaluations, 0
    both = math.lcm(self._checkpoint, self._evaluate)
    return evaluations, multiples(self._checkpoint) - multiples(both)
