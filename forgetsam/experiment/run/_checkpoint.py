"""Checkpoints that notice damage: saved by orbax, verified leaf by leaf.

Their files are the same for any number of processes and devices.
"""

import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from forgetsam._arrays import cast_like
from forgetsam.experiment.run._checksums import (
  add_checksum,
  leaf_checksums,
  place_like,
  to_host,
)
from forgetsam.experiment.run._manager import (
  Rank,
  best_first,
  first_whole,
  open_manager,
  read_records,
  restore,
)
from forgetsam.experiment.run._processes import from_main, on_main
from forgetsam.experiment.run._state_parts import parts_of, whole
from forgetsam.experiment.run._workdir import CheckpointError, storage_problem
from forgetsam.training import TrainState


class Variables(NamedTuple):
  """A checkpoint's variables and record, and the weights' average if any."""

  step: int
  params: Any
  model_state: Any
  record: dict[str, Any]
  ema: Any = None


class Checkpoints:
  """A run's checkpoints: the latest ones and the best.

  A checkpoint is the state, and a JSON record of what else the run needs to
  resume. The record carries a SHA-256 of every leaf and of itself: orbax
  restores a flipped bit silently, and does not fall back where a file is cut
  short. A thread reads back what was saved, and only then deletes what it
  replaces. Several processes call every method in the same order; an error of
  process 0 is raised in each.

  Args:
    folder: where the checkpoints lie, one folder a step.
    keep: number of latest checkpoints to keep beside the best.
    read_only: leaves everything as it is, also what a live run is writing.

  Raises:
    CheckpointError: orbax would lose checkpoints under such a path.
  """

  def __init__(self, folder: Path, keep: int = 1, read_only: bool = False):
    self._folder, self._keep = folder.absolute(), keep
    self._ranks: dict[int, Rank] = {}
    self._newest: dict[str, Any] = {}
    # Process 0's:
    self._manager: Any = None
    self._thread = ThreadPoolExecutor(1)
    self._saving: Future[None] | None = None
    on_main(lambda: self._open(read_only))

  def _open(self, read_only: bool) -> None:
    allowed = storage_problem(self._folder, writes=not read_only)
    if allowed is not None:
      raise CheckpointError(f"{self._folder} is refused: not {allowed}")
    if not read_only:  # orbax does not, with several processes
      self._folder.mkdir(parents=True, exist_ok=True)
    self._manager = open_manager(self._folder, read_only)
    for step, record in read_records(self._manager).items():
      self._newest = record
      if record.get("rank") is not None:
        self._ranks[step] = tuple(record["rank"])

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *_: object) -> None:
    if self._manager is not None:
      try:
        self._settle()
      finally:
        self._thread.shutdown()
        self._manager.close()

  def steps(self) -> list[int]:
    """The steps that have a checkpoint, ascending."""
    return on_main(self._steps)

  def _steps(self) -> list[int]:
    self._settle()
    return sorted(self._manager.all_steps())

  def newest_record(self) -> dict[str, Any]:
    """The record of the newest checkpoint when the folder was opened, or {}."""
    return on_main(lambda: self._newest)

  def best_steps(self) -> list[int]:
    """The steps with a validation result, best first."""
    return on_main(lambda: best_first(self._ranks, self._steps()))

  def save(
    self,
    state: TrainState,
    record: Mapping[str, Any],
    rank: Rank | None = None,
    *,
    step: int | None = None,
  ) -> None:
    """Saves a state under its step; files are written in the background.

    What goes wrong there is raised by the next call of any method.

    Args:
      state: the state, finite and at rest; it is copied before this returns.
      record: what else the run needs, as JSON can hold it.
      rank: how good the state is, larger being better, or None if unknown.
      step: the checkpoint's number; None takes `state.step`.
    """
    step = int(state.step) if step is None else step
    host = to_host(parts_of(state))
    on_main(lambda: self._save(step, host, record, rank))

  def _save(
    self, step: int, host: Any, record: Mapping[str, Any], rank: Rank | None
  ) -> None:
    self._settle()
    if rank is not None:
      self._ranks[step] = rank
    sha256 = {name: leaf_checksums(tree) for name, tree in host.items()}
    record = add_checksum({**record, "rank": rank, "sha256": sha256})
    items = {name: ocp.args.StandardSave(tree) for name, tree in host.items()}
    # Without `force` orbax skips a step that exists, and says nothing.
    self._manager.save(
      step,
      args=ocp.args.Composite(**items, record=ocp.args.JsonSave(record)),
      force=True,
    )
    like = jax.tree.map(np.empty_like, host)
    self._saving = self._thread.submit(self._verify, step, like)

  def _verify(self, step: int, like: Any) -> None:
    """Reads a checkpoint back, then deletes those that it replaces."""
    self._manager.wait_until_finished()
    steps = sorted(self._manager.all_steps())
    try:
      restore(self._manager, step, like)
    except Exception as error:
      raise CheckpointError(
        f"checkpoint {step} in {self._folder} was written, but cannot be read "
        f"back: {str(error).partition(chr(10))[0]}\nThe storage has lost it "
        "without an error. The checkpoints before it stay: "
        f"{[s for s in steps if s != step]}. With storage that keeps what it "
        "is given, the same command goes on from them."
      ) from error
    kept = {*steps[-self._keep :], *best_first(self._ranks, steps)[:1]}
    for old in steps:
      if old not in kept:
        self._manager.delete(old)

  def check(self) -> None:
    """Raises what went wrong in a save since; cheap enough for every step."""
    if self._saving is not None and self._saving.done():
      self._settle()

  def _settle(self) -> None:
    """Waits for the last save to be verified."""
    saving, self._saving = self._saving, None
    if saving is not None:
      saving.result()

  def wait(self) -> None:
    """Returns when every file is written, and was read back."""
    on_main(self._settle)

  def restore_latest(
    self, target: TrainState
  ) -> tuple[TrainState, dict[str, Any]] | None:
    """The newest state that is whole, and its record; None if none was saved.

    Damaged checkpoints are reported by name and moved into `damaged/` beside
    the folder, so that the run can save their steps again.

    Args:
      target: a state of the same run, for structure and placement.

    Raises:
      CheckpointError: there are checkpoints, and all are damaged.
    """
    like = to_host(parts_of(target))
    arrays: Any = None

    def read() -> dict[str, Any] | None:
      nonlocal arrays
      steps = self._steps()[::-1]
      restored, damaged = first_whole(self._manager, steps, like)
      for step in damaged:
        self._quarantine(step)
      if restored is None:
        return None
      arrays = restored.arrays
      return restored.record

    if (record := on_main(read)) is None:
      return None
    parts = place_like(from_main(arrays, like), parts_of(target))
    return whole(parts, target), record

  def variables(self, steps: Sequence[int]) -> Variables:
    """Parameters and model state of the first of `steps` that is whole.

    Raises:
      CheckpointError: none is.
    """
    arrays: Any = None

    def read() -> tuple[int, dict[str, Any], Any]:
      nonlocal arrays
      restored, _ = first_whole(self._manager, steps)
      if restored is None:
        raise CheckpointError(f"{self._folder} holds no checkpoint")
      arrays = restored.arrays["variables"]
      shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arrays
      )
      return restored.step, restored.record, shapes

    step, record, shapes = on_main(read)
    variables = jax.tree.map(jnp.array, from_main(arrays, shapes))
    if "ema" in variables:
      variables["ema"] = cast_like(variables["ema"], variables["params"])
    return Variables(step, **variables, record=record)

  def _quarantine(self, step: int) -> None:
    target = self._folder.parent / "damaged" / str(step)
    target.parent.mkdir(exist_ok=True)
    if target.exists():
      shutil.rmtree(target)
    shutil.move(self._folder / str(step), target)
    self._ranks.pop(step, None)
    self._manager.reload()
