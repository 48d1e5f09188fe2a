"""A request to end: Ctrl-C, or what schedulers send before the machine goes."""

import os
import signal
import threading
from types import FrameType
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from forgetsam.training import DATA_AXIS, replicated, split_batch

_CTRL_C = (
  b"\nCtrl-C: the run finishes its step, saves and ends. Ctrl-C again ends it "
  b"at once.\n"
)


class PreemptedError(Exception):
  """The run was asked to end, and has saved its state."""


class Preemption:
  """Notes SIGTERM and the first Ctrl-C, on which a run's processes agree.

  A second Ctrl-C ends the process at once. Signals reach a program's main
  thread only; elsewhere nothing is noted. With several processes, of which any
  may get the signal, their requests are summed beside every step, and all read
  the sum with that step's metrics.

  Own code: orbax's `reached_preemption` needs several processes, looks for the
  signal once a second, and keeps SIGTERM from ending the jobs that ignore it.
  """

  def __init__(self) -> None:
    self._noted = False
    self._agreed = False
    self._all_reduce = _AllReduce() if jax.process_count() > 1 else None
    self._before: dict[signal.Signals, Any] = {}
    self._says = jax.process_index() == 0

  @property
  def requested(self) -> bool:
    """True once the run is to save and end; the same in all processes."""
    return self._noted if self._all_reduce is None else self._agreed

  def dispatch(self) -> Array | None:
    """Begins to sum the requests, once a step; None for one process."""
    return None if self._all_reduce is None else self._all_reduce(self._noted)

  def agree(self, requests: Array | None) -> None:
    """Reads a sum; it waits for the step that was dispatched before it."""
    if requests is not None and int(requests):
      self._agreed = True

  def __enter__(self) -> "Preemption":
    if threading.current_thread() is not threading.main_thread():
      return self
    for number in (signal.SIGTERM, signal.SIGINT):
      # A shell starts its background jobs with SIGINT ignored.
      if signal.getsignal(number) is not signal.SIG_IGN:
        self._before[number] = signal.signal(number, self._note)
    return self

  def __exit__(self, *_: object) -> None:
    for number, before in self._before.items():
      signal.signal(number, before)

  def _note(self, number: int, frame: FrameType | None) -> None:
    del frame
    self._noted = True
    if number == signal.SIGINT:
      signal.signal(number, signal.SIG_DFL)
      if self._says:  # as bytes: a print may be what the signal interrupts
        os.write(2, _CTRL_C)


class _AllReduce:
  """Sums one number of each device, without the host's waiting for it."""

  def __init__(self) -> None:
    mesh = Mesh(np.asarray(jax.devices()), (DATA_AXIS,))
    self._split = split_batch(mesh)
    self._sum = jax.jit(lambda x: x.sum(), out_shardings=replicated(mesh))

  def __call__(self, mine: bool) -> Array:
    numbers = np.full(jax.local_device_count(), int(mine), np.int32)
    return self._sum(
      jax.make_array_from_process_local_data(self._split, numbers)
    )
