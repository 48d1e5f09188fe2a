"""A dataset's mean loss as a function of the weights, and its derivatives."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float

from forgetsam._arrays import tree_norm
from forgetsam._typing import Forward, Loss, PyTree
from forgetsam.sharpness._batch_functions import (
  Batch,
  BatchFunctions,
  batch_functions,
)
from forgetsam.training import check_batch, check_mesh, replicated, split_batch


class DatasetLoss(NamedTuple):
  """The mean loss over a dataset's examples that count, by their weight.

  Attributes:
    value: `params -> loss`.
    value_and_gradient: `params -> (loss, gradient)`.
    hessian_vector_product: `(params, v) -> H v`.
    gauss_newton_vector_product: `(params, v) -> G v`, with
      :math:`G = \\frac1N \\sum_i J_i^\\top \\nabla_z^2 \\ell_i J_i` and J the
      logits' Jacobian.
    num_examples: N, how many examples count, or the weight of all positions.
    parts: the loss of each batch alone.
  """

  value: Callable[[PyTree], Float[Array, ""]]
  value_and_gradient: Callable[[PyTree], tuple[Float[Array, ""], PyTree]]
  hessian_vector_product: Callable[[PyTree, PyTree], PyTree]
  gauss_newton_vector_product: Callable[[PyTree, PyTree], PyTree]
  num_examples: float
  parts: "tuple[DatasetLoss, ...]"


def dataset_loss(
  forward: Forward,
  loss: Loss,
  model_state: PyTree,
  batches: Iterable[Batch],
  *,
  inputs: str = "image",
  labels: str = "label",
  mesh: Mesh | None = None,
) -> DatasetLoss:
  r"""The mean loss of a network in evaluation mode over a whole dataset.

  .. math:: L(w) = \frac1N \sum_{i=1}^N \ell(f_w(x_i), y_i)

  Every example counts once, or by its weight in the mask; the batches' size and
  the number of devices change rounding alone. Derivatives are exact, in float32
  and the highest matmul precision. One program per quantity works on one batch,
  and Python goes through the batches: call the functions outside of `jit`,
  which would lay all batches out in one program. Programs are kept for a pair
  of `forward` and `loss`: pass the same two for all networks of an
  architecture.

  Args:
    forward: the model, `(params, model_state, images, *, train, key) ->
      (logits, model_state)`; it is called with `train=False`.
    loss: `(outputs, labels) -> scalar`, the mean over a batch of independent
      examples; or a number for each. With weights of positions it has
      `where=`.
    model_state: the model's other collections, such as running statistics.
    batches: inputs and labels, trees of arrays `[B, ...]`, and, where padded,
      "mask", weights of examples `[B]` or of the labels' positions; all of one
      size. They are placed on the devices, all at once.
    inputs: the key of the batches that `forward` takes.
    labels: the key that `loss` takes.
    mesh: a mesh with the axis "data", whose size divides B; `None` runs on
      the default device.

  Returns:
    Functions of params; everything they return is at least float32.

  Raises:
    ValueError: there is no unmasked example, batches differ in size, or the
      mesh does not fit.

  Example:
    >>> import forgetsam as fs, jax.numpy as jnp
    >>> forward = lambda w, state, x, **_: (x @ w, state)
    >>> batches = [{"image": jnp.eye(2), "label": jnp.arange(2)}]
    >>> loss = dataset_loss(forward, fs.softmax_cross_entropy(), {}, batches)
    >>> float(loss.value(jnp.zeros((2, 2))))  # log 2
    0.693...

  References:
    Pearlmutter, *Fast Exact Multiplication by the Hessian*, 1994; Schraudolph,
    *Fast Curvature Matrix-Vector Products for Second-Order Gradient Descent*,
    2002.
  """
  check_mesh(mesh)
  placed, counts = [], []
  for batch in batches:
    check_batch(batch, mesh, inputs, labels)
    clean = _blank_padding(
      {**batch, "image": batch[inputs], "label": batch[labels]}
    )
    counts.append(clean["mask"].sum().item())
    sharding = None if mesh is None else split_batch(mesh)
    placed.append(jax.device_put(clean, sharding))
  _check_all(counts, placed)
  functions = batch_functions(
    forward,  # type: ignore[arg-type]  # mypy: no promise of __hash__
    loss,
    mesh,
  )
  parts = tuple(
    _mean_over(functions, model_state, [batch], count, mesh)
    for batch, count in zip(placed, counts, strict=True)
  )
  whole = _mean_over(functions, model_state, placed, sum(counts), mesh)
  return whole._replace(parts=parts)


def gradient_norm(loss: DatasetLoss, params: PyTree) -> Float[Array, ""]:
  r"""The Euclidean norm of the dataset's gradient, :math:`\lVert g \rVert`.

  Args:
    loss: as `dataset_loss` builds it.
    params: where.

  Returns:
    A scalar, in units of loss per unit of weight.

  Example:
    >>> import forgetsam as fs, jax.numpy as jnp
    >>> forward = lambda w, state, x, **_: (x @ w, state)
    >>> batches = [{"image": jnp.eye(2), "label": jnp.arange(2)}]
    >>> loss = dataset_loss(forward, fs.softmax_cross_entropy(), {}, batches)
    >>> round(float(gradient_norm(loss, jnp.zeros((2, 2)))), 4)
    0.5
  """
  return tree_norm(loss.value_and_gradient(params)[1])


def _mean_over(
  functions: BatchFunctions,
  model_state: PyTree,
  batches: list[Batch],
  count: float,
  mesh: Mesh | None,
) -> DatasetLoss:
  finish = (lambda x: x) if mesh is None else _wait

  def mean(function: Callable[..., Any]) -> Callable[..., Any]:
    def over_batches(*trees: PyTree) -> Any:
      # On even where a caller's loop has turned it off to run in Python.
      with jax.disable_jit(False):
        if mesh is not None:
          trees = _wait(jax.device_put(trees, replicated(mesh)))
        terms = (finish(function(b, model_state, trees)) for b in batches)
        total = functools.reduce(lambda x, y: finish(_add(x, y)), terms)
        return _divide(total, count)

    return over_batches

  return DatasetLoss(
    mean(functions.value),
    mean(functions.value_and_gradient),
    mean(functions.hessian),
    mean(functions.gauss_newton),
    num_examples=count,
    parts=(),
  )


def _wait(result: Any) -> Any:
  """Waits on CPUs, where XLA's collectives hang when programs pile up."""
  on_cpu = jax.default_backend() == "cpu"
  return jax.block_until_ready(result) if on_cpu else result


_add = jax.jit(optax.tree.add)
_divide = jax.jit(lambda tree, n: jax.tree.map(lambda x: x / n, tree))


def _blank_padding(batch: Batch) -> Batch:
  """Zeros in the padding, where a nan would survive into the gradient."""
  size = _size(batch)
  mask = np.asarray(batch.get("mask", np.ones(size)))
  if mask.shape[:1] != (size,):
    raise ValueError(
      f'batch["mask"] has shape {mask.shape}: it must be one number per '
      f"example, ({size},), or one per position"
    )
  marks = mask.ndim == 1 and np.isin(mask, (0, 1)).all()
  mask = mask.astype(bool if marks else np.float32)
  counts = mask.reshape(size, -1).any(axis=1)

  def blank(x: Array | np.ndarray) -> Array | np.ndarray:
    if counts.all():
      return x
    keep = counts.reshape(size, *[1] * (np.ndim(x) - 1))
    return np.where(keep, x, np.zeros_like(x))

  blanked = {k: jax.tree.map(blank, batch[k]) for k in ("image", "label")}
  return {**blanked, "mask": mask}


def _size(batch: Batch) -> int:
  return len(jax.tree.leaves(batch["label"])[0])


def _check_all(counts: list[float], batches: list[Batch]) -> None:
  if sum(counts) == 0:
    raise ValueError("batches must hold at least one unmasked example")
  sizes = sorted({_size(batch) for batch in batches})
  if len(sizes) > 1:
    raise ValueError(
      f"batches have the sizes {sizes}: pad the last one and mark the padding "
      'with 0 in "mask"'
    )
