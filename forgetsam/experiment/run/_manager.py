"""orbax's manager of a folder, which process 0 alone uses."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from forgetsam.experiment.run._checksums import leaf_checksums, verify_record
from forgetsam.experiment.run._workdir import CheckpointError

Rank = tuple[float, ...]


class Restored(NamedTuple):
  """A checkpoint that has passed verification."""

  step: int
  arrays: dict[str, Any]
  record: dict[str, Any]


def open_manager(folder: Path, read_only: bool) -> ocp.CheckpointManager:
  """A manager that deletes nothing of its own accord.

  orbax deletes the checkpoint before as soon as it has written the next one,
  which no one has read by then.
  """
  return ocp.CheckpointManager(
    folder,
    options=ocp.CheckpointManagerOptions(
      # orbax's own `read_only` warns of what it implies, three times.
      create=False,
      cleanup_tmp_directories=not read_only,
      multiprocessing_options=_without_barriers(),
    ),
  )


def restore(
  manager: ocp.CheckpointManager, step: int, target: Any = None
) -> Restored:
  """Reads and verifies a checkpoint; without a target only variables."""
  names = ["variables"] if target is None else ["variables", "training"]
  items = {
    name: ocp.args.StandardRestore(target and target[name]) for name in names
  }
  restored = manager.restore(
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
  return Restored(step, arrays, record)


def first_whole(
  manager: ocp.CheckpointManager, steps: Sequence[int], target: Any = None
) -> tuple[Restored | None, list[int]]:
  """The first that passes verification, and the damaged ones before it."""
  folder, damaged = manager.directory, list[int]()
  reason: Exception | None = None
  for step in steps:
    try:
      return restore(manager, step, target), damaged
    except Exception as error:  # orbax and tensorstore raise many kinds
      reason = error
      damaged.append(step)
      file, line = folder / str(step), str(error).partition("\n")[0]
      logging.warning("Checkpoint %s is damaged and not used: %s", file, line)
  if damaged:
    raise CheckpointError(
      f"every checkpoint in {folder} is damaged: {damaged}; start in another "
      "workdir"
    ) from reason
  return None, []


def read_records(manager: ocp.CheckpointManager) -> dict[int, dict[str, Any]]:
  """The records that can be read, by step, ascending."""
  records = {}
  for step in sorted(manager.all_steps()):
    args = ocp.args.Composite(record=ocp.args.JsonRestore())
    try:
      restored = manager.restore(step, args=args)
      records[step] = verify_record(restored["record"])
    except Exception:  # whatever is wrong is reported when it is restored
      continue
  return records


def best_first(ranks: Mapping[int, Rank], steps: Sequence[int]) -> list[int]:
  """The ranked steps, best first; of equals the earlier one is better."""
  ranked = [step for step in steps if step in ranks]
  return sorted(ranked, key=lambda step: (ranks[step], -step), reverse=True)


def _without_barriers() -> ocp.options.MultiprocessingOptions:
  """Keeps orbax in this process from waiting for the others."""
  if jax.process_count() == 1:
    return ocp.options.MultiprocessingOptions()
  return ocp.options.MultiprocessingOptions(
    primary_host=0, active_processes={0}, barrier_sync_key_prefix="forgetsam"
  )
