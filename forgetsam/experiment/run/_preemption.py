"""A polite end when the machine is taken away."""

import signal
import threading
from types import FrameType
from typing import Any

import jax
from jaxtyping import Array

from forgetsam.experiment.run._processes import Votes


class PreemptedError(Exception):
  """The run was asked to end, and has saved its state."""


class Preemption:
  """Notes SIGTERM, which schedulers send before they take a machine away.

  Signals reach a program's main thread only; elsewhere nothing is noted. With
  several processes, of which any may get the signal, they vote beside every
  step, and all learn the result where they read that step's metrics.
  """

  def __init__(self) -> None:
    self._noted = False
    self._agreed = False
    self._votes = Votes() if jax.process_count() > 1 else None
    self._before: Any = None
    self._listens = threading.current_thread() is threading.main_thread()

  @property
  def requested(self) -> bool:
    """Whether to save and end; the same in all processes."""
    return self._noted if self._votes is None else self._agreed

  def ask(self) -> Array | None:
    """Dispatches a vote, once a step; None where there is no one to ask."""
    return None if self._votes is None else self._votes.cast(self._noted)

  def hear(self, votes: Array | None) -> None:
    """Reads a vote; it waits for the step that was dispatched before it."""
    if votes is not None and int(votes):
      self._agreed = True

  def __enter__(self) -> "Preemption":
    if self._listens:
      self._before = signal.signal(signal.SIGTERM, self._note)
    return self

  def __exit__(self, *_: object) -> None:
    if self._listens:
      signal.signal(signal.SIGTERM, self._before)

  def _note(self, number: int, frame: FrameType | None) -> None:
    del number, frame
    self._noted = True
