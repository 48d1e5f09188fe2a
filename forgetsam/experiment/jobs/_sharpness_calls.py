"""The calls of the loss that `--job=sharpness` makes, as pieces of its work."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import config_dict

from forgetsam import sharpness
from forgetsam.experiment.jobs._measuring import Measured
from forgetsam.experiment.jobs._progress import Progress

SAMPLES, ASCENTS = 50, 20  # in each ball
# Of a call, about.
COSTS = {"gradient": 3.0, "hessian": 6, "gauss_newton": 5, "micro_batches": 6}


def plan(config: config_dict.ConfigDict, run: Measured) -> dict[str, int]:
  """How often each function of the loss is called."""
  options = config.sharpness
  params = next(iter(run.checkpoints.values())).params
  sizes = [jax.tree.map(jnp.size, params)]
  if options.layers:
    sizes += [
      jax.tree.map(lambda keep, x: keep * jnp.size(x), mask, params)
      for mask in sharpness.layer_groups(params).values()
    ]
  dims = [sum(jax.tree.leaves(size)) for size in sizes]
  lanczos, samples = options.lanczos_steps, options.trace_samples
  products = sum(min(lanczos, n) + samples + min(2 * samples, n) for n in dims)
  once = {
    "value": len(dims) * (1 + 2 * (1 + 2 * SAMPLES) + 2 * 2)
    + options.surface_points**2,
    "gradient": len(dims) * (1 + 2 * ASCENTS) + bool(options.surface_points),
    "hessian": products + options.density_samples * min(lanczos, dims[0]),
    "gauss_newton": products,
    "micro_batches": 2,
  }
  return {kind: n * len(run.checkpoints) for kind, n in once.items()}


def counted(
  loss: sharpness.DatasetLoss, progress: Progress
) -> sharpness.DatasetLoss:
  """The same loss, each of whose calls is a piece of the work."""

  def noted(kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*trees: Any) -> Any:
      result = jax.block_until_ready(function(*trees))
      progress.done(kind)
      return result

    return call

  return loss._replace(
    value=noted("value", loss.value),
    value_and_gradient=noted("gradient", loss.value_and_gradient),
    hessian_vector_product=noted("hessian", loss.hessian_vector_product),
    gauss_newton_vector_product=noted(
      "gauss_newton", loss.gauss_newton_vector_product
    ),
  )
