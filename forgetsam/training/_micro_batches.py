"""m-sharpness: one perturbation per micro-batch, averaged over all of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from forgetsam._arrays import at_least_float32, is_float
from forgetsam._typing import PyTree

# XLA's CPU backend runs convolutions inside a loop about 12 times slower.
MOST_UNROLLED = 16


class MicroBatchResult(NamedTuple):
  """What one micro-batch, or the average over several, gives."""

  grads: PyTree
  metrics: dict[str, Array]
  model_state: PyTree
  perturb_state: Any


# (model_state, micro-batch, index of the micro-batch) -> result
MicroBatchFn = Callable[[PyTree, PyTree, int | Array], MicroBatchResult]


def average_over_micro_batches(
  micro_step: MicroBatchFn,
  model_state: PyTree,
  batch: PyTree,
  *,
  size: int,
  first_index: int | Array,
  unroll: bool,
  mark: Callable[[PyTree], PyTree] = lambda tree: tree,
) -> MicroBatchResult:
  """Runs `micro_step` on consecutive slices of the batch and averages.

  Gradients, metrics and the floating-point leaves of the perturbation's state
  are averaged over micro-batches; its integers and keys are the first's.
  `model_state` passes from one micro-batch to the next.

  Args:
    micro_step: the work on one micro-batch.
    model_state: where the first micro-batch starts.
    batch: arrays that share the leading axis, which `size` divides.
    size: examples in a micro-batch, m.
    first_index: the global index of the first micro-batch.
    unroll: whether to lay the micro-batches out one after another instead of
      looping over them.
    mark: marks the loop's first carry as varying over devices.

  Returns:
    The averages; gradients in at least float32.
  """
  count = len(jax.tree.leaves(batch)[0]) // size

  def wide_step(
    model_state: PyTree, piece: PyTree, i: int | Array
  ) -> MicroBatchResult:
    return _widen(micro_step(model_state, piece, first_index + i))

  if unroll:
    return _divide(_unrolled(wide_step, model_state, batch, count), count)
  pieces = jax.tree.map(lambda x: x.reshape(count, size, *x.shape[1:]), batch)
  return _divide(_scanned(wide_step, model_state, pieces, count, mark), count)


def _unrolled(
  step: MicroBatchFn, model_state: PyTree, batch: PyTree, count: int
) -> MicroBatchResult:
  """The micro-batches' program, laid out `count` times."""
  size = len(jax.tree.leaves(batch)[0]) // count
  slices = [slice(i * size, (i + 1) * size) for i in range(count)]
  pieces = [jax.tree.map(lambda x, s=s: x[s], batch) for s in slices]
  total = step(model_state, pieces[0], 0)
  for i in range(1, count):
    total = _accumulate(total, step(total.model_state, pieces[i], i), i)
  return total


def _scanned(
  step: MicroBatchFn,
  model_state: PyTree,
  pieces: PyTree,
  count: int,
  mark: Callable[[PyTree], PyTree],
) -> MicroBatchResult:
  """The micro-batches' program once, in a loop."""
  shapes = jax.eval_shape(
    lambda: step(model_state, jax.tree.map(lambda x: x[0], pieces), 0)
  )

  def body(
    total: MicroBatchResult, xs: tuple[Array, PyTree]
  ) -> tuple[MicroBatchResult, list[Array]]:
    i, piece = xs
    result = step(total.model_state, piece, i)
    # Integers and keys leave by the stacked outputs: the loop's carry would
    # mark them as different on every device.
    floats, others = _split(result.perturb_state)
    return _accumulate(total, result._replace(perturb_state=floats), i), others

  zeros = MicroBatchResult(
    grads=_zeros(shapes.grads),
    metrics=_zeros(shapes.metrics),
    model_state=model_state,
    perturb_state=_zeros(_split(shapes.perturb_state)[0]),
  )
  total, others = jax.lax.scan(body, mark(zeros), (jnp.arange(count), pieces))
  firsts = [x[0] for x in others]
  return total._replace(
    perturb_state=_join(shapes.perturb_state, total.perturb_state, firsts)
  )


def _widen(result: MicroBatchResult) -> MicroBatchResult:
  """Gradients in a precision that sums over micro-batches do not exhaust."""
  return result._replace(grads=jax.tree.map(at_least_float32, result.grads))


def _accumulate(
  total: MicroBatchResult, result: MicroBatchResult, i: int | Array
) -> MicroBatchResult:
  """Adds the i-th result: sums, and a running mean of the state.

  The running mean is exact where all values agree, such as hyper-parameters;
  a sum divided by the count would drift from step to step.
  """

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


def _divide(total: MicroBatchResult, count: int) -> MicroBatchResult:
  mean = lambda x: x / count  # noqa: E731
  return total._replace(
    grads=jax.tree.map(mean, total.grads),
    metrics=jax.tree.map(mean, total.metrics),
  )


def _zeros(shapes: PyTree) -> PyTree:
  return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)


def _split(tree: PyTree) -> tuple[list[Any], list[Any]]:
  leaves = jax.tree.leaves(tree)
  floats = [x for x in leaves if is_float(x)]
  return floats, [x for x in leaves if not is_float(x)]


def _join(like: PyTree, floats: list[Array], others: list[Array]) -> PyTree:
  leaves, structure = jax.tree.flatten(like)
  sources = iter(floats), iter(others)
  return jax.tree.unflatten(
    structure, [next(sources[0] if is_float(x) else sources[1]) for x in leaves]
  )
