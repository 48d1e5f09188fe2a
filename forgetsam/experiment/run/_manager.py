"""orbax's manager of a folder, which process 0 alone uses."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

Rank = tuple[float, ...]


def open_manager(
  folder: Path, keep: int, ranks: dict[int, Rank], read_only: bool
) -> ocp.CheckpointManager:
  """A manager that keeps the latest checkpoints and the highest of `ranks`."""
  latest = preservation_policy.LatestN(keep)
  return ocp.CheckpointManager(
    folder,
    options=ocp.CheckpointManagerOptions(
      preservation_policy=preservation_policy.AnyPreservationPolicy(
        [latest, _Best(ranks)]
      ),
      # orbax's own `read_only` warns of what it implies, three times.
      create=False,
      cleanup_tmp_directories=not read_only,
      multiprocessing_options=_without_barriers(),
    ),
  )


class _Best(preservation_policy.PreservationPolicy):
  """Preserves the checkpoint of the highest rank.

  Own code: orbax's BestN ranks by a metrics file of each checkpoint, which has
  no checksum and which the runs of earlier versions lack; of equals it keeps
  the later one.
  """

  def __init__(self, ranks: dict[int, Rank]):
    self._ranks = ranks

  def should_preserve(
    self, checkpoints: Sequence[Any], *, context: Any
  ) -> Sequence[bool]:
    del context
    ranked = best_first(self._ranks, [info.step for info in checkpoints])
    return [info.step in ranked[:1] for info in checkpoints]


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
