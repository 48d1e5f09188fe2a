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

from forgetsam._arrays import at_least_float32, is_float
from forgetsam._typing import PyTree
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
  add_weighted,
  nan_without_weight,
  weighted_over_devices,
)

# XLA's CPU backend runs convolutions inside a loop about 12 times slower.
MOST_UNROLLED = 16


class Together(NamedTuple):
  """A step of `chunk` micro-batches at once; it divides a device's number.

  `step(state, micro-batches, their indices, their keys, varying)`.
  """

  step: Callable[..., MicroBatchResult]
  chunk: int


# (state, a micro-batch, how many there are, a dropout key, platform)
Choose = Callable[[TrainState, Examples, int, jax.Array, str], Together | None]
# (model state, micro-batch, its index on the device) -> result
_Step = Callable[[PyTree, Examples, int | Array], MicroBatchResult]


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
  platform = jax.default_backend()
  if mesh is not None:
    platform = mesh.devices.flat[0].platform
  on_one_device = functools.partial(
    _on_one_device,
    micro_step,
    choose,
    size=size,
    platform=platform,
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
  platform: str,
  device: Array | None = None,
  mesh: Mesh | None = None,
) -> MicroBatchResult:
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
  count = share // size
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
  run: _Step = step
  together = None
  if choose is not None:
    first_key = jax.random.fold_in(step_key, first_index)
    together = choose(state, _at(micro_batches, 0), count, first_key, platform)
  if together is not None:
    run = _several(together, state, first_index, step_key, device is not None)
    count //= together.chunk
    micro_batches = jax.tree.map(
      lambda x: x.reshape(count, -1, *x.shape[1:]), micro_batches
    )
  if count == 1 or (platform == "cpu" and count <= MOST_UNROLLED):
    total = _unrolled(run, state.model_state, micro_batches, count)
  else:
    total = _scanned(
      run, state.model_state, micro_batches, count, on_mesh=device is not None
    )
  if total.weights is not None:
    return total
  sums = (total.grads, total.metrics)
  grads, metrics = jax.tree.map(lambda x: x / count, sums)
  return total._replace(grads=grads, metrics=metrics)


def _several(
  together: Together,
  state: TrainState,
  first_index: int | Array,
  step_key: jax.Array,
  on_mesh: bool,
) -> _Step:
  """The work on a chunk of micro-batches, the i-th of the device."""

  def step(
    model_state: PyTree, chunk: Examples, i: int | Array
  ) -> MicroBatchResult:
    indices = first_index + i * together.chunk + jnp.arange(together.chunk)
    return together.step(
      state.replace(model_state=model_state),
      chunk,
      indices,
      jax.vmap(lambda k: jax.random.fold_in(step_key, k))(indices),
      varying if on_mesh else lambda tree: tree,
    )

  return step


def _unrolled(
  step: _Step, model_state: PyTree, micro_batches: Examples, count: int
) -> MicroBatchResult:
  total = step(model_state, _at(micro_batches, 0), 0)
  for i in range(1, count):
    result = step(total.model_state, _at(micro_batches, i), i)
    total = _accumulate(total, result, i)
  return total


def _scanned(
  step: _Step,
  model_state: PyTree,
  micro_batches: Examples,
  count: int,
  *,
  on_mesh: bool,
) -> MicroBatchResult:
  def body(
    total: MicroBatchResult, xs: tuple[Array, Examples]
  ) -> tuple[MicroBatchResult, PyTree]:
    i, micro_batch = xs
    result = step(total.model_state, micro_batch, i)
    # Integers and keys leave by the stacked outputs: the loop's carry would
    # mark them as different on every device.
    floats, others = _partition(result.perturb_state)
    return _accumulate(total, result._replace(perturb_state=floats), i), others

  shapes = jax.eval_shape(lambda: step(model_state, _at(micro_batches, 0), 0))
  shapes = shapes._replace(perturb_state=_partition(shapes.perturb_state)[0])
  zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
  zeros = zeros._replace(model_state=model_state)
  total, others = jax.lax.scan(
    body,
    varying(zeros) if on_mesh else zeros,
    (jnp.arange(count), micro_batches),
  )
  perturb_state = jax.tree.map(
    lambda x, y: y if x is None else x,
    total.perturb_state,
    _at(others, 0),
    is_leaf=lambda x: x is None,
  )
  return total._replace(perturb_state=perturb_state)


def _at(tree: PyTree, i: int) -> PyTree:
  return jax.tree.map(lambda x: x[i], tree)


def _partition(tree: PyTree) -> tuple[PyTree, PyTree]:
  """Floating-point leaves and the others, each with `None` for the rest."""
  return (
    jax.tree.map(lambda x: x if is_float(x) else None, tree),
    jax.tree.map(lambda x: None if is_float(x) else x, tree),
  )


def _accumulate(
  total: MicroBatchResult, result: MicroBatchResult, i: int | Array
) -> MicroBatchResult:
  """Adds the i-th result: sums, and a running mean of the state.

  The running mean is exact where all values agree, such as hyper-parameters;
  a sum divided by the count would drift from step to step.
  """
  if total.weights is not None:
    return add_weighted(total, result)

  def running_mean(mean: Array, x: Array) -> Array:
    return (mean + (x - mean) / (i + 1)) if is_float(x) else mean

  return MicroBatchResult(
    grads=jax.tree.map(jnp.add, total.grads, result.grads),
    metrics=jax.tree.map(jnp.add, total.metrics, result.metrics),
    model_state=result.model_state,
    perturb_state=jax.tree.map(
      running_mean, total.perturb_state, result.perturb_state
    ),
  )
