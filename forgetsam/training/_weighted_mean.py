"""Means by weight, of a batch with a mask: over micro-batches and devices."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from forgetsam._arrays import at_least_float32, is_float
from forgetsam._typing import PyTree
from forgetsam.training._mesh import sum_over_devices
from forgetsam.training._micro_step import MicroBatchResult, Weights


def add_weighted(
  total: MicroBatchResult, result: MicroBatchResult
) -> MicroBatchResult:
  """Adds a micro-batch's result by its weight, to running means alone."""
  both = jax.tree.map(jnp.add, total.weights, result.weights)

  def running_mean(mean: Array, x: Array, w: Array, so_far: Array) -> Array:
    if not is_float(x):
      return mean
    share = (w / jnp.where(w == 0, 1, so_far)).astype(x.dtype)
    # Exact where all agree, and where nothing before had a weight.
    moved = jnp.where(share == 1, x, mean + (x - mean) * share)
    return jnp.where(share == 0, mean, moved)

  means = jax.tree.map(
    running_mean,
    total,
    result,
    _of_each(result, result.weights),
    _of_each(result, both),
  )
  return means._replace(model_state=result.model_state, weights=both)


def weighted_over_devices(result: MicroBatchResult) -> MicroBatchResult:
  """The devices' weighted mean: sums and weights share the one collective."""

  def weigh(x: Array, w: Array) -> Array:
    if not is_float(x):
      return x
    x = at_least_float32(x)
    return jnp.where(w == 0, 0, x * w.astype(x.dtype))

  def divide(total: Array, w: Array, x: Array) -> Array:
    if not is_float(x):
      return total
    divisor = jnp.where(w == 0, 1, w).astype(total.dtype)
    return (total / divisor).astype(x.dtype)

  weights = result.weights
  assert weights is not None
  scaled = jax.tree.map(weigh, result, _of_each(result, weights))
  sums = sum_over_devices(
    scaled._replace(weights=weights), counts=weights.clean != 0
  )
  means = jax.tree.map(divide, sums, _of_each(result, sums.weights), result)
  return means._replace(weights=sums.weights)


def nan_without_weight(result: MicroBatchResult) -> MicroBatchResult:
  """Metrics are nan, and the step is skipped, where no example counts."""
  if result.weights is None:
    return result
  counts = result.weights.clean != 0
  metrics = jax.tree.map(
    lambda x: jnp.where(counts, x, jnp.nan), result.metrics
  )
  return result._replace(metrics=metrics)


def _of_each(
  result: MicroBatchResult, weights: Weights | None
) -> MicroBatchResult:
  """The weight that each leaf is averaged by."""
  assert weights is not None
  whole, clean = weights

  def fill(weight: Array, part: PyTree) -> PyTree:
    return jax.tree.map(lambda _: weight, part)

  return MicroBatchResult(
    grads=fill(whole, result.grads),
    metrics=fill(clean, result.metrics),
    model_state=fill(clean, result.model_state),
    perturb_state=fill(whole, result.perturb_state),
    weights=weights,
  )
