"""m-sharpness: one perturbation per micro-batch, averaged over all of them.

Every device takes its share of the batch, splits it into consecutive
micro-batches of m examples, and averages over them; one collective averages
over devices.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array

from forgetsam._arrays import at_least_float32
from forgetsam._typing import PyTree
from forgetsam.training._loop import Step, at, scanned, unrolled
from forgetsam.training._mesh import (
  DATA_AXIS,
  FSDP_AXIS,
  average_over_devices,
  group_size,
  has_more_axes,
  varying,
  varying_floats,
)
from forgetsam.training._micro_step import (
  Examples,
  MicroBatchResult,
  MicroStep,
  num_examples,
)
from forgetsam.training._placed_step import over_group
from forgetsam.training._train_state import TrainState
from forgetsam.training._weighted_mean import (
  nan_without_weight,
  weighted_over_devices,
)

# XLA's CPU backend runs convolutions inside a loop about 12 times slower.
MOST_UNROLLED = 16


class Share(NamedTuple):
  """A device's micro-batches, of which `choose` sees the first.

  Attributes:
    first: its examples.
    number: how many there are.
    first_index: the first one's index, over all devices.
    key: of the step; a micro-batch's own folds in its index.
    platform: where they run.
    varying: marks arrays as different on every device, on a mesh.
  """

  first: Examples
  number: int
  first_index: int | Array
  key: jax.Array
  platform: str
  varying: Callable[[PyTree], PyTree]


class Together(NamedTuple):
  """A step of `chunk` micro-batches at once; it divides a device's number.

  `step(state, micro-batches, their indices, their keys, varying)`.
  """

  step: Callable[..., MicroBatchResult]
  chunk: int


Choose = Callable[[TrainState, Share], Together | None]


def platform_of(mesh: Mesh | None) -> str:
  if mesh is None:
    return jax.default_backend()
  return mesh.devices.flat[0].platform


def divide(
  batch: Examples, size: int | None, mesh: Mesh | None
) -> tuple[int, int]:
  """A device's micro-batches: the examples of each, and how many."""
  share = num_examples(batch)
  size = share if size is None else size
  if share % size:
    raise ValueError(
      f"micro_batch_size={size} must divide the per-device batch of {share}"
    )
  if size % group_size(mesh):
    raise ValueError(
      f"micro_batch_size={size} must be a multiple of {group_size(mesh)}, the "
      f'devices along the mesh\'s axis "{FSDP_AXIS}" that share a micro-batch'
    )
  return size, share // size


def share_of_one(
  batch: Examples, size: int | None, mesh: Mesh | None, key: jax.Array
) -> Share:
  """The first device's share, of a batch over all."""
  devices = 1 if mesh is None else mesh.shape[DATA_AXIS]
  mine = jax.tree.map(lambda x: x[: len(x) // devices], batch)
  size, count = divide(mine, size, mesh)
  first = jax.tree.map(lambda x: x[:size], mine)
  return Share(first, count, 0, key, platform_of(mesh), lambda tree: tree)


def average_over_micro_batches(
  micro_step: MicroStep,
  state: TrainState,
  batch: Examples,
  key: jax.Array,
  *,
  size: int | None,
  mesh: Mesh | None,
  choose: Choose | None = None,
) -> MicroBatchResult:
  """Runs `micro_step` on all micro-batches, on a mesh or on one device.

  Gradients (in at least float32), metrics and the floating-point leaves of the
  perturbation's state are averaged; its integers and keys are the first
  micro-batch's. `model_state` passes from one micro-batch to the next. With a
  mask, all count by their weight; where there is none at all, metrics are nan.
  `choose` may run several micro-batches at once, in place of `micro_step`.
  """
  on_one_device = functools.partial(
    _on_one_device,
    micro_step,
    choose,
    size=size,
    mesh=mesh,
  )
  # Of one group alone the compiler divides all; XLA refuses a program apart.
  if mesh is None or (has_more_axes(mesh) and mesh.shape[DATA_AXIS] == 1):
    result = on_one_device(state, batch, key)
    return nan_without_weight(result)

  def on_each_device(
    state: TrainState, batch: Examples, key: jax.Array
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
    result = on_one_device(state, batch, key, device=device)
    if result.weights is None:
      return average_over_devices(result)
    return weighted_over_devices(result)

  result = jax.shard_map(
    on_each_device,
    mesh=mesh,
    in_specs=(PartitionSpec(), PartitionSpec(DATA_AXIS), PartitionSpec()),
    out_specs=PartitionSpec(),
    axis_names={DATA_AXIS},
  )(state, batch, key)
  return nan_without_weight(result)


def _on_one_device(
  micro_step: MicroStep,
  choose: Choose | None,
  state: TrainState,
  batch: Examples,
  key: jax.Array,
  size: int | None,
  device: Array | None = None,
  mesh: Mesh | None = None,
) -> MicroBatchResult:
  size, count = divide(batch, size, mesh)
  first_index = 0 if device is None else device * count
  step_key = jax.random.fold_in(key, state.step)

  def step(
    model_state: PyTree, micro_batch: Examples, i: int | Array
  ) -> MicroBatchResult:
    index = first_index + i
    result = micro_step(
      state.replace(model_state=model_state),
      micro_batch,
      index,
      jax.random.fold_in(step_key, index),
    )
    # Sums over micro-batches would exhaust a lower precision.
    return result._replace(grads=jax.tree.map(at_least_float32, result.grads))

  micro_batches = jax.tree.map(
    lambda x: x.reshape(count, size, *x.shape[1:]), batch
  )
  micro_batches = over_group(micro_batches, mesh, axis=1)
  share = Share(
    at(micro_batches, 0),
    count,
    first_index,
    step_key,
    platform_of(mesh),
    (lambda tree: tree) if device is None else varying,
  )
  run: Step = step
  together = None if choose is None else choose(state, share)
  unrolls = share.platform == "cpu" and count <= MOST_UNROLLED
  if together is not None:
    run = several(together, state, share)
    count //= together.chunk
    micro_batches = jax.tree.map(
      lambda x: x.reshape(count, -1, *x.shape[1:]), micro_batches
    )
    # Chunks one after another: XLA would run unrolled ones side by side.
    unrolls = False
  if count == 1 or unrolls:
    total = unrolled(run, state.model_state, micro_batches, count)
  else:
    total = scanned(run, state.model_state, micro_batches, count, share.varying)
  if total.weights is not None:
    return total
  sums = (total.grads, total.metrics)
  grads, metrics = jax.tree.map(lambda x: x / count, sums)
  return total._replace(grads=grads, metrics=metrics)


def several(together: Together, state: TrainState, share: Share) -> Step:
  """The work on a chunk of micro-batches, the i-th of the device."""

  def step(
    model_state: PyTree, chunk: Examples, i: int | Array
  ) -> MicroBatchResult:
    indices = (
      share.first_index + i * together.chunk + jnp.arange(together.chunk)
    )
    return together.step(
      state.replace(model_state=model_state),
      chunk,
      indices,
      jax.vmap(lambda k: jax.random.fold_in(share.key, k))(indices),
      share.varying,
    )

  return step
