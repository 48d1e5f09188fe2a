"""Several processes as one run: they connect, and end together."""

import contextlib
import ctypes
import io
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import jax

from forgetsam.experiment.config import ConfigError, ProcessFlags, refusal
from forgetsam.experiment.run._failures import report_failure
from forgetsam.experiment.run._launch import launch_arguments
from forgetsam.experiment.run._processes import (
  is_main,
  num_devices,
  on_main,
  process_shard,
)
from forgetsam.experiment.run._workdir import CHECKPOINTS, saved_steps

# The jobs that several processes can share.
SHARED = ("train", "evaluate")

# A process that dies is noticed after the first; one that ends with an error
# waits the second for the others to end likewise, and then ends them too.
_HEARTBEAT_SECONDS = 30
_SHUTDOWN_SECONDS = 15

_LOST = (
  "Process {} of {} was ended because another process of this run died, ended "
  "with an error of its own (see its output) or can no longer be reached; "
  "JAX's message is above."
)
# JAX aborts where it loses a process; so does much else.
_ABORTED = (
  "Process {} of {} was aborted; what JAX or the system said is above. If it "
  "names a lost task, a heartbeat or a barrier, another process of this run "
  "died, ended with an error of its own or can no longer be reached."
)
# In JAX's errors of a collective, or of its table, when a peer is gone.
_LOST_PEER = ("unavailable: ", "deadline_exceeded", "gloo", "nccl")


@contextlib.contextmanager
def joined(flags: ProcessFlags, job: str, workdir: Path) -> Iterator[None]:
  """Connects this process with a run's others, if a launcher started several.

  It must come before anything that touches devices.

  Args:
    flags: the command line's flags of processes.
    job: the job to run.
    workdir: the run's folder.

  Raises:
    ConfigError: the job cannot be shared, or the processes differ.
  """
  arguments = launch_arguments(flags, os.environ)
  if arguments is None:
    yield
    return
  if job not in SHARED:
    raise ConfigError(
      refusal(
        "--job",
        job,
        f"{' or '.join(SHARED)} where there are several processes; "
        "--num_processes=1 runs this one alone",
      )
    )
  _connect(arguments, flags.connect_seconds)
  try:
    aborted = _ABORTED.format(*process_shard())
    _at_abort(lambda: aborted + _how_to_resume(job, workdir))
    if not is_main():
      _silence()
    _check_devices()
    yield
    # Process 0 may save for longer than the others wait at the shutdown.
    on_main(lambda: None)
  except BaseException as error:
    _end_with(error, job, workdir)
  jax.distributed.shutdown()


def _connect(arguments: dict[str, Any], seconds: int) -> None:
  where = arguments.get("coordinator_address", "the launcher's first host")
  _at_abort(
    lambda: (
      f"Not all processes of this run found each other at {where} within "
      f"--connect_seconds={seconds}: one did not start, or cannot be reached."
    )
  )
  # This project's own agreement on SIGTERM also lets jobs end that have none.
  jax.config.update("jax_enable_preemption_service", False)
  try:
    jax.distributed.initialize(
      **arguments,
      initialization_timeout=seconds,
      heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
      shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
    )
  except RuntimeError as error:
    text = f"a host that all reach and a free port there; {error}"
    raise ConfigError(refusal("--coordinator", where, text)) from error


def _check_devices() -> None:
  if jax.device_count() != num_devices():
    raise ConfigError(
      f"process {jax.process_index()} has {jax.local_device_count()} of "
      f"{jax.device_count()} devices\n  allowed: as many devices in each of "
      f"the {jax.process_count()} processes"
    )


def _end_with(error: BaseException, job: str, workdir: Path) -> NoReturn:
  """Ends this process, and the others, which may wait for it forever.

  Those with the same error shut down alike; JAX aborts the others.
  """
  code, text = _report(error, job, workdir)
  if is_main():
    print(text, file=sys.stderr, flush=True)
    text = "Process 0 has ended the others."
  else:
    text = "Process {} of {}: ".format(*process_shard()) + text
  _at_abort(lambda: text, code)
  sys.stdout.flush()
  try:
    jax.distributed.shutdown()
  except RuntimeError:  # the peers are gone: no one else reports it
    print(f"\n{text}", file=sys.stderr, flush=True)
  os._exit(code)  # Python's own end would wait for steps that never come


def _report(error: BaseException, job: str, workdir: Path) -> tuple[int, str]:
  """The exit code, and the text for the user."""
  if _is_lost_peer(error):
    shown = "".join(traceback.format_exception(error))
    lost = _LOST.format(*process_shard())
    return 1, f"{shown}\n{lost}{_how_to_resume(job, workdir)}"
  if not isinstance(error, Exception):  # Ctrl-C
    return 1, f"{type(error).__name__}.{_how_to_resume(job, workdir)}"
  with contextlib.redirect_stderr(io.StringIO()) as written:
    code = report_failure(error, workdir)
  return code, written.getvalue()


def _is_lost_peer(error: BaseException) -> bool:
  """Tells JAX's errors of a lost peer from others that only name one."""
  if not isinstance(error, jax.errors.JaxRuntimeError):
    return False
  text = str(error).lower()
  return any(sign in text for sign in _LOST_PEER)


def _at_abort(text: Callable[[], str], code: int = 1) -> None:
  """Prints a text and exits where JAX's runtime aborts, in its own thread.

  JAX's callback crashes, and the handlers of Python's `signal` run in the main
  thread, which waits for a dead process.
  """

  def say(number: int) -> None:
    del number
    os.write(2, f"\n{text()}\n".encode())
    os._exit(code)

  _kept.append(ctypes.CFUNCTYPE(None, ctypes.c_int)(say))
  ctypes.CDLL(None).signal(signal.SIGABRT, _kept[-1])


_kept: list[Any] = []  # C holds no reference to its handlers


def _how_to_resume(job: str, workdir: Path) -> str:
  """Where the same command resumes, for jobs that train."""
  if job != "train" or not (workdir / CHECKPOINTS).is_dir():
    return ""
  steps = saved_steps(workdir)
  if not steps:
    return " No checkpoint is saved: the same command begins anew."
  return f" The same command goes on from checkpoint {steps[-1]}."


def _silence() -> None:
  """Mutes a process but for its errors; process 0 reports for all."""
  logging.disable(logging.WARNING)
  os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # also what libraries print
