"""One batch's contribution to a dataset's loss and derivatives, compiled."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float

from forgetsam._arrays import at_least_float32
from forgetsam._checks import check_real
from forgetsam._objectives import example_losses
from forgetsam._typing import Forward, Loss, PyTree
from forgetsam.training import replicated, split_batch

Batch = dict[str, Any]


class BatchFunctions(NamedTuple):
  """Weighted sums over a batch; of (batch, model_state, [params, maybe v])."""

  value: Callable[..., Any]
  value_and_gradient: Callable[..., Any]
  hessian: Callable[..., Any]
  gauss_newton: Callable[..., Any]


# Another dataset, network or key re-uses the programs of the same model.
@functools.lru_cache(maxsize=32)
def batch_functions(
  forward: Forward, loss: Loss, mesh: Mesh | None
) -> BatchFunctions:
  def outputs_fn(batch: Batch, model_state: PyTree, params: PyTree) -> PyTree:
    outputs, _ = forward(
      params, model_state, batch["image"], train=False, key=None
    )
    return jax.tree.map(at_least_float32, outputs)

  def total(outputs: PyTree, batch: Batch) -> Float[Array, ""]:
    mask, labels = batch["mask"], batch["label"]
    where = None if mask.ndim == 1 else mask
    losses = example_losses(loss, outputs, labels, where)
    if mask.dtype == bool:
      return jnp.sum(jnp.where(mask, losses, 0.0))
    weights = jnp.sum(mask, range(1, mask.ndim))
    return jnp.sum(jnp.where(weights > 0, losses * weights, 0.0))

  def value(batch: Batch, model_state: PyTree, params: PyTree) -> Array:
    return total(outputs_fn(batch, model_state, params), batch)

  def hessian(
    batch: Batch, model_state: PyTree, params: PyTree, v: PyTree
  ) -> PyTree:
    gradient = jax.grad(lambda p: value(batch, model_state, p))
    return jax.jvp(gradient, (params,), (v,))[1]

  def gauss_newton(
    batch: Batch, model_state: PyTree, params: PyTree, v: PyTree
  ) -> PyTree:
    network = lambda p: outputs_fn(batch, model_state, p)  # noqa: E731
    outputs, pullback = jax.vjp(network, params)
    tangent = jax.jvp(network, (params,), (v,))[1]
    gradient = jax.grad(lambda z: total(z, batch))
    return pullback(jax.jvp(gradient, (outputs,), (tangent,))[1])[0]

  gradient = jax.value_and_grad(value, argnums=2)
  return BatchFunctions(
    *(_compile(f, mesh) for f in (value, gradient, hessian, gauss_newton))
  )


def _compile(
  function: Callable[..., Any], mesh: Mesh | None
) -> Callable[..., Any]:
  def exact(batch: Batch, model_state: PyTree, trees: Sequence[PyTree]) -> Any:
    check_real("sharpness", trees[0])
    wide = jax.tree.map(at_least_float32, trees)
    with jax.default_matmul_precision("highest"):
      return function(batch, model_state, *wide)

  if mesh is None:
    return jax.jit(exact)
  whole = replicated(mesh)
  return jax.jit(
    exact,
    in_shardings=(split_batch(mesh), whole, whole),
    out_shardings=whole,
  )
