"""One micro-batch after another, or one chunk, and the average over all."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from forgetsam._arrays import is_float
from forgetsam._typing import PyTree
from forgetsam.training._micro_step import Examples, MicroBatchResult
from forgetsam.training._weighted_mean import add_weighted

# (model state, micro-batch, its index on the device) -> result
Step = Callable[[PyTree, Examples, int | Array], MicroBatchResult]


def unrolled(
  step: Step, model_state: PyTree, micro_batches: Examples, count: int
) -> MicroBatchResult:
  total = step(model_state, at(micro_batches, 0), 0)
  for i in range(1, count):
    result = step(total.model_state, at(micro_batches, i), i)
    total = _accumulate(total, result, i)
  return total


def scanned(
  step: Step,
  model_state: PyTree,
  micro_batches: Examples,
  count: int,
  varying: Callable[[PyTree], PyTree],
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

  shapes = jax.eval_shape(lambda: step(model_state, at(micro_batches, 0), 0))
  shapes = shapes._replace(perturb_state=_partition(shapes.perturb_state)[0])
  zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
  zeros = zeros._replace(model_state=model_state)
  total, others = jax.lax.scan(
    body,
    varying(zeros),
    (jnp.arange(count), micro_batches),
  )
  perturb_state = jax.tree.map(
    lambda x, y: y if x is None else x,
    total.perturb_state,
    at(others, 0),
    is_leaf=lambda x: x is None,
  )
  return total._replace(perturb_state=perturb_state)


def at(tree: PyTree, i: int) -> PyTree:
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
