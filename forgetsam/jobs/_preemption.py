"""A polite end when the machine is taken away."""

import signal
import threading
from types import FrameType
from typing import Any


class PreemptedError(Exception):
  """The run was asked to end, and has saved its state."""


class Preemption:
  """Notes SIGTERM, which schedulers send before they take a machine away.

  Signals reach a program's main thread only; elsewhere nothing is noted.
  """

  def __init__(self) -> None:
    self.requested = False
    self._before: Any = None
    self._listens = threading.current_thread() is threading.main_thread()

  def __enter__(self) -> "Preemption":
    if self._listens:
      self._before = signal.signal(signal.SIGTERM, self._note)
    return self

  def __exit__(self, *_: object) -> None:
    if self._listens:
      signal.signal(signal.SIGTERM, self._before)

  def _note(self, number: int, frame: FrameType | None) -> None:
    del number, frame
    self.requested = True
