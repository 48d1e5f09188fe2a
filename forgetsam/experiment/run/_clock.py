"""How long a run takes, over all its sessions."""

import time


class Clock:
  """Wall seconds, summed over a run's sessions.

  What a killed session did after its last checkpoint is not in the sum.
  """

  def __init__(self, started: float):
    self._started = started
    self.before = 0.0
    self.startup = 0.0

  def wall(self) -> float:
    """Seconds of this session and of those it goes on from."""
    return self.before + time.monotonic() - self._started

  def first_step(self) -> None:
    """Notes how long this session took until its first step was compiled."""
    self.startup = time.monotonic() - self._started
