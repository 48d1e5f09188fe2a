"""The descent gradient of a whole batch: over micro-batches and devices."""

from collections.abc import Callable

import jax
from jax.sharding import Mesh, PartitionSpec

from forgetsam._typing import PyTree
from forgetsam.training._mesh import DATA_AXIS, average, varying, varying_floats
from forgetsam.training._micro_batches import (
  MOST_UNROLLED,
  MicroBatchFn,
  MicroBatchResult,
  average_over_micro_batches,
)
from forgetsam.training._train_state import TrainState


def average_gradients(
  make_micro_step: Callable[[TrainState, jax.Array], MicroBatchFn],
  state: TrainState,
  batch: PyTree,
  key: jax.Array,
  *,
  size: int | None,
  mesh: Mesh | None,
) -> MicroBatchResult:
  """Averages over the batch's micro-batches, on a mesh or on one device.

  Args:
    make_micro_step: from the state and the run's key to the work on one
      micro-batch.
    state: the state before the step, replicated over the mesh.
    batch: "image" and "label", whose leading axis the mesh splits.
    key: the run's key.
    size: examples in a micro-batch; `None` takes a device's share whole.
    mesh: a mesh with the one axis "data", or `None`.

  Returns:
    Gradients, metrics, model state and perturbation state: means over
    micro-batches and devices, the same on every device.
  """
  if mesh is None:
    micro_step = make_micro_step(state, key)
    return _on_device(micro_step, state, batch, size, jax.default_backend(), 0)
  platform = mesh.devices.flat[0].platform

  def share(
    state: TrainState, batch: PyTree, key: jax.Array
  ) -> MicroBatchResult:
    # Counts and keys stay the same on every device; what a perturbation may
    # mix with a device's own gradients, inside a cond or a loop, does not.
    state = state.replace(
      params=varying(state.params),
      model_state=varying(state.model_state),
      opt_state=varying_floats(state.opt_state),
      perturb_state=varying_floats(state.perturb_state),
    )
    device = jax.lax.axis_index(DATA_AXIS)
    micro_step = make_micro_step(state, key)
    result = _on_device(
      micro_step, state, batch, size, platform, device, mark=varying
    )
    return average(result)

  return jax.shard_map(
    share,
    mesh=mesh,
    in_specs=(PartitionSpec(), PartitionSpec(DATA_AXIS), PartitionSpec()),
    out_specs=PartitionSpec(),
  )(state, batch, key)


def _on_device(
  micro_step: MicroBatchFn,
  state: TrainState,
  batch: PyTree,
  size: int | None,
  platform: str,
  device: int | jax.Array,
  mark: Callable[[PyTree], PyTree] = lambda tree: tree,
) -> MicroBatchResult:
  """The averages over one device's share of the batch."""
  share = len(batch["label"])
  size = share if size is None else size
  if share % size:
    raise ValueError(
      f"micro_batch_size={size} must divide the per-device batch of {share}"
    )
  count = share // size
  return average_over_micro_batches(
    micro_step,
    state.model_state,
    batch,
    size=size,
    first_index=device * count,
    unroll=count == 1 or (platform == "cpu" and count <= MOST_UNROLLED),
    mark=mark,
  )
