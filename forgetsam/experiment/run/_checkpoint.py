"""Checkpoints that notice damage: saved by orbax, verified leaf by leaf.

Their files are the same for any number of processes and devices.
"""

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from forgetsam.experiment.run._checksums import (
  add_checksum,
  leaf_checksums,
  place_like,
  to_host,
  verify_record,
)
from forgetsam.experiment.run._manager import Rank, best_first, open_manager
from forgetsam.experiment.run._processes import from_main, on_main
from forgetsam.experiment.run._workdir import CheckpointError
from forgetsam.training import TrainState


class Variables(NamedTuple):
  """A checkpoint's variables and its record."""

  step: int
  params: Any
  model_state: Any
  record: dict[str, Any]


class Checkpoints:
  """A run's checkpoints: the latest ones and the best.

  A checkpoint is the state, and a JSON record of what else the run needs to
  resume. The record carries a SHA-256 of every leaf and of itself: orbax
  restores a flipped bit silently, and does not fall back where a file is cut
  short. Several processes call every method in the same order; an error of
  process 0 is raised in each.

  Args:
    folder: where the checkpoints lie, one folder a step.
    keep: number of latest checkpoints to keep beside the best.
    read_only: leaves everything as it is, also what a live run is writing.
  """

  def __init__(self, folder: Path, keep: int = 1, read_only: bool = False):
    self._folder = folder.absolute()
    self._ranks: dict[int, Rank] = {}
    self._newest: dict[str, Any] = {}
    self._manager: Any = None  # process 0's
    on_main(lambda: self._open(keep, read_only))

  def _open(self, keep: int, read_only: bool) -> None:
    if not read_only:  # orbax does not, with several processes
      self._folder.mkdir(parents=True, exist_ok=True)
    self._manager = open_manager(self._folder, keep, self._ranks, read_only)
    for step in self._steps():
      args = ocp.args.Composite(record=ocp.args.JsonRestore())
      try:
        restored = self._manager.restore(step, args=args)
        self._newest = verify_record(restored["record"])
        rank = self._newest["rank"]
      except Exception:  # whatever is wrong is reported when it is restored
        continue
      if rank is not None:
        self._ranks[step] = tuple(rank)

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *_: object) -> None:
    if self._manager is not None:
      self._manager.close()

  def steps(self) -> list[int]:
    """The steps that have a checkpoint, ascending."""
    return on_main(self._steps)

  def _steps(self) -> list[int]:
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

    Args:
      state: the state, finite and at rest; it is copied before this returns.
      record: what else the run needs, as JSON can hold it.
      rank: how good the state is, larger being better, or None if unknown.
      step: the checkpoint's number; None takes `state.step`.
    """
    step = int(state.step) if step is None else step
    host = to_host(_parts(state))
    on_main(lambda: self._save(step, host, record, rank))

  def _save(
    self, step: int, host: Any, record: Mapping[str, Any], rank: Rank | None
  ) -> None:
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

  def wait(self) -> None:
    """Returns when every file is written."""
    on_main(lambda: self._manager.wait_until_finished())

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
    like = to_host(_parts(target))
    arrays: Any = None

    def read() -> dict[str, Any] | None:
      nonlocal arrays
      restored, damaged = self._first_whole(self._steps()[::-1], like)
      for step in damaged:
        self._quarantine(step)
      if restored is None:
        return None
      arrays = restored.arrays
      return restored.record

    if (record := on_main(read)) is None:
      return None
    parts = place_like(from_main(arrays, like), _parts(target))
    return target.replace(**parts["variables"], **parts["training"]), record

  def variables(self, steps: Sequence[int]) -> Variables:
    """Parameters and model state of the first of `steps` that is whole.

    Raises:
      CheckpointError: none is.
    """
    arrays: Any = None

    def read() -> tuple[int, dict[str, Any], Any]:
      nonlocal arrays
      restored, _ = self._first_whole(steps)
      if restored is None:
        raise CheckpointError(f"{self._folder} holds no checkpoint")
      arrays = restored.arrays["variables"]
      shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arrays
      )
      return restored.step, restored.record, shapes

    step, record, shapes = on_main(read)
    variables = jax.tree.map(jnp.array, from_main(arrays, shapes))
    return Variables(step, **variables, record=record)

  def _first_whole(
    self, steps: Sequence[int], target: Any = None
  ) -> tuple["_Restored | None", list[int]]:
    """The first that passes verification, and the damaged ones before it."""
    damaged: list[int] = []
    reason: Exception | None = None
    for step in steps:
      try:
        return self._restore(step, target), damaged
      except Exception as error:  # orbax and tensorstore raise many kinds
        reason = error
        damaged.append(step)
        file, line = self._folder / str(step), str(error).partition("\n")[0]
        logging.warning("Checkpoint %s is damaged and not used: %s", file, line)
    if damaged:
      raise CheckpointError(
        f"every checkpoint in {self._folder} is damaged: {damaged}; start in "
        "another workdir"
      ) from reason
    return None, []

  def _restore(self, step: int, target: Any = None) -> "_Restored":
    """Reads and verifies a checkpoint; without a target only variables."""
    names = ["variables"] if target is None else ["variables", "training"]
    items = {
      name: ocp.args.StandardRestore(target and target[name]) for name in names
    }
    restored = self._manager.restore(
      step, args=ocp.args.Composite(**items, record=ocp.args.JsonRestore())
    )
    record = verify_record(restored["record"])
    expected = record.pop("sha256")
    arrays = {name: restored[name] for name in names}
    for name, tree in arrays.items():
      found = leaf_checksums(tree)
      for path in expected[name] | found:
        if expected[name].get(path) != found.get(path):
          raise CheckpointError(f"{name}{path} differs from its checksum")
    return _Restored(step, arrays, record)

  def _quarantine(self, step: int) -> None:
    target = self._folder.parent / "damaged" / str(step)
    target.parent.mkdir(exist_ok=True)
    if target.exists():
      shutil.rmtree(target)
    shutil.move(self._folder / str(step), target)
    self._ranks.pop(step, None)
    self._manager.reload()


class _Restored(NamedTuple):
  step: int
  arrays: dict[str, Any]
  record: dict[str, Any]


def _parts(state: TrainState) -> dict[str, Any]:
  """Separates what models need from what only training needs."""
  return {
    "variables": {"params": state.params, "model_state": state.model_state},
    "training": {
      "step": state.step,
      "opt_state": state.opt_state,
      "perturb_state": state.perturb_state,
    },
  }
