"""What a checkpoint consists of, which are kept, and where it goes back to."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from forgetsam.experiment.run._run_files import CheckpointError
from forgetsam.training import TrainState, place

_SEAL = "record_sha256"

Rank = tuple[float, ...]


class Best(preservation_policy.PreservationPolicy):
  """Preserves the checkpoint of the highest rank."""

  def __init__(self, ranks: dict[int, Rank]):
    self._ranks = ranks

  def should_preserve(
    self, checkpoints: Sequence[Any], *, context: Any
  ) -> Sequence[bool]:
    del context
    ranked = by_rank(self._ranks, [info.step for info in checkpoints])
    return [info.step in ranked[:1] for info in checkpoints]


def by_rank(ranks: Mapping[int, Rank], steps: Sequence[int]) -> list[int]:
  """The ranked steps, best first; of equals the earlier one is better."""
  ranked = [step for step in steps if step in ranks]
  return sorted(ranked, key=lambda step: (ranks[step], -step), reverse=True)


def state_parts(state: TrainState) -> dict[str, Any]:
  """What models need apart from what only training needs."""
  return {
    "variables": {"params": state.params, "model_state": state.model_state},
    "training": {
      "step": state.step,
      "opt_state": state.opt_state,
      "perturb_state": state.perturb_state,
    },
  }


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
  """The record with a checksum of itself."""
  return {**record, _SEAL: _digest(record)}


def opened(record: Mapping[str, Any]) -> dict[str, Any]:
  """The record without its checksum.

  Raises:
    CheckpointError: they do not belong together.
  """
  rest = dict(record)
  # Records of older versions have none.
  if rest.pop(_SEAL, None) not in (None, _digest(rest)):
    raise CheckpointError("the record differs from its checksum")
  return rest


def _digest(record: Mapping[str, Any]) -> str:
  text = json.dumps(record, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def placed(arrays: Any, like: Any) -> Any:
  """The devices' own copies of restored arrays, placed as `like` is."""

  def own(array: Any, leaf: jax.Array) -> jax.Array:
    # A device may share NumPy's memory; a donated buffer must be its own.
    restored = jnp.array(array, copy=True)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      restored = jax.random.wrap_key_data(
        restored, impl=jax.random.key_impl(leaf)
      )
    return restored

  shardings = jax.tree.map(lambda leaf: leaf.sharding, like)
  return place(jax.tree.map(own, arrays, like), shardings)


def alone() -> ocp.options.MultiprocessingOptions:
  """Keeps orbax in this process from waiting for the others."""
  if jax.process_count() == 1:
    return ocp.options.MultiprocessingOptions()
  return ocp.options.MultiprocessingOptions(
    primary_host=0, active_processes={0}, barrier_sync_key_prefix="forgetsam"
  )
