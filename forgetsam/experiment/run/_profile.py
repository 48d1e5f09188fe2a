"""A profiler trace of a few steps."""

from pathlib import Path

import jax


class Profile:
  """Traces steps of a session, past compilation, for TensorBoard or Perfetto.

  Args:
    folder: where the trace goes, or None to trace nothing.
    start: the session's first step.
    stop: the run's number of steps.
  """

  _SKIP, _COUNT = 5, 5

  def __init__(self, folder: Path | None, start: int, stop: int):
    self._folder = folder
    self._first = min(start + self._SKIP, max(start, stop - self._COUNT))
    self._last = min(self._first + self._COUNT, stop)
    self._tracing = False

  def before(self, step: int) -> None:
    """Begins the trace if `step` is the first one in it."""
    if self._folder is not None and step == self._first:
      jax.profiler.start_trace(str(self._folder))
      self._tracing = True

  def after(self, done: int, result: object) -> None:
    """Ends the trace once the last step in it has run."""
    if self._tracing and done == self._last:
      jax.block_until_ready(result)
      jax.profiler.stop_trace()
      self._tracing = False
