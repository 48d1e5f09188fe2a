r"""Several micro-batches at once, without a gradient or an offset of each.

With :math:`g_i` the ascent gradient of micro-batch i and its offset
:math:`\delta_i = c_i g_i + s`, a layer's inputs a and its outputs' cotangents
b give :math:`\lVert g_i \rVert`, hence :math:`c_i`, and

.. math:: (W + \delta_i)^\top h = (W + s)^\top h + c_i \, b^\top (a h).

One forward pass, one pass back to the layers' outputs, and one whole pass at
the perturbed weights: five products of each matrix with the batch, where SAM
takes six.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from forgetsam._arrays import at_least_float32
from forgetsam._combination import Terms
from forgetsam._typing import PyTree
from forgetsam.training._micro_step import (
  Examples,
  MicroBatchResult,
  Parts,
  Weights,
)
from forgetsam.training._train_state import TrainState
from forgetsam.training.factored._averages import (
  Coefficients,
  coefficients_of,
  mean,
  shares_of,
  times,
  total,
  zeros,
)
from forgetsam.training.factored._gradient import Gradient, product_with_array
from forgetsam.training.factored._lengths import Lengths, lengths, norm
from forgetsam.training.factored._pass import Offset
from forgetsam.training.factored._passes import PerturbedPasses, clean_passes
from forgetsam.training.factored._plan import Factored, Plan
from forgetsam.training.factored._update import (
  ASCENT,
  PERTURBED,
  Moved,
  Numbers,
  Updated,
  run_update,
)


class _Micro(NamedTuple):
  """The parts of micro-batches that updates read, [n] in front."""

  indices: Array
  loss: Array
  lengths: Lengths
  gradients: dict[str, Gradient]


class _After(NamedTuple):
  """Results of updates, [n] in front."""

  point: list[Coefficients]
  result: list[Coefficients]
  state: list[Array]  # the arrays that differ
  sums: dict[int, Coefficients]


def factored_step(
  parts: Parts,
  factored: Factored,
  state: TrainState,
  batch: Examples,
  indices: Array,
  keys: jax.Array,
  varying: Callable[[PyTree], PyTree],
) -> MicroBatchResult:
  """Runs micro-batches together, and averages as a loop over them would.

  Args:
    batch: of micro-batches, [n, m, ...].
    indices: of the micro-batches, over all devices.
    varying: marks arrays as different on every device, on a mesh.
  """
  plan, network = factored.plan, factored.clean
  leaves = jax.tree.leaves(state.params)
  update = _Updates(factored, state)
  clean = clean_passes(parts, network, state, batch, keys, varying)
  shares = shares_of(
    None if clean.weights is None else clean.weights.whole, indices
  )
  gradients = {ASCENT: clean.ascent, PERTURBED: clean.ascent}
  at_point = dict(plan.needs_at_point)
  if parts.reads_ascent:
    at_point[ASCENT, ASCENT] = frozenset(range(len(leaves)))
  micro = _Micro(
    indices,
    jnp.zeros(len(indices), jnp.float32),
    lengths(network, gradients, at_point, varying),
    gradients,
  )
  metrics = dict(clean.metrics)
  if parts.reads_ascent:
    metrics["ascent_grad_norm"] = norm(micro.lengths, ASCENT)

  # What micro-batches share is computed from the first.
  shared = update.alone(jax.tree.map(lambda x: x[0], micro))
  at, offset = _point(
    plan, shared.point, jax.vmap(update)(micro).point, clean.ascent, leaves
  )
  passes = PerturbedPasses(
    parts,
    factored.perturbed,
    state,
    batch,
    keys,
    at,
    offset,
    varying,
  )
  if plan.factor is not None:
    losses, grads = passes.mean_gradient(shares)
    grads = [plan.factor * g for g in grads]
    micro = micro._replace(loss=losses)
  else:
    losses, gradients[PERTURBED] = passes.gradients()
    found = lengths(network, gradients, plan.needs, varying)
    micro = _Micro(indices, losses, found, gradients)
  after = jax.vmap(update)(micro)
  if plan.factor is None:
    grads = total(
      network, gradients, after.result, shared.result.shared, shares, leaves
    )
  grads = [
    at_least_float32(g.astype(w.dtype))
    for g, w in zip(grads, leaves, strict=True)
  ]
  result = MicroBatchResult(
    jax.tree.unflatten(jax.tree.structure(state.params), grads),
    metrics,
    clean.model_state,
    _next_state(factored, shared, after, gradients, shares, state),
  )
  if clean.weights is None:
    return result._replace(metrics=mean(metrics, shares))
  return result._replace(
    metrics=mean(metrics, shares_of(clean.weights.clean, indices)),
    weights=Weights(*map(jnp.sum, clean.weights)),
  )


class _Updates:
  """The update of `perturb`, for one micro-batch at a time."""

  def __init__(self, factored: Factored, state: TrainState):
    self._factored = factored
    self._state = state

  def alone(self, micro: _Micro) -> Updated:
    """One micro-batch's update."""

    def product(index: int, left: str, right: str) -> Array:
      pair = (left, right) if left <= right else (right, left)
      # Of the perturbed gradient, before it is known.
      return micro.lengths.products.get(pair, {}).get(
        index, jnp.zeros((), jnp.float32)
      )

    def with_array(index: int, name: str, array: Array) -> Array:
      gradient = micro.gradients[name]
      found = product_with_array(self._factored.clean, index, gradient, array)
      return found / micro.lengths.scales[name].astype(found.dtype)

    numbers = Numbers(
      micro.indices, micro.loss, micro.lengths.scales, product, with_array
    )
    plan = self._factored.plan
    plain = plan.factor is not None
    return run_update(plan.perturb, self._state, numbers, whole=plain)

  def __call__(self, micro: _Micro) -> _After:
    """The part of an update that each micro-batch has of its own."""
    found = self.alone(micro)
    differs = self._factored.plan.differs
    scales = micro.lengths.scales
    return _After(
      coefficients_of(found.point, scales),
      coefficients_of(found.result, scales),
      [x for x, d in zip(found.state, differs, strict=True) if d],
      {
        k: coefficients_of(Moved([x.coefficients], [x.shared]), scales)[0]
        for k, x in found.sums.items()
      },
    )


def _point(
  plan: Plan,
  shared: Moved,
  point: list[Coefficients],
  ascent: Gradient,
  leaves: list[Any],
) -> tuple[list[Array], Offset]:
  """Splits the points of all micro-batches into what they share, and the rest.

  Args:
    shared: the first micro-batch's point.
    point: the coefficients of all.
  """
  at = []
  arrays: dict[int, list[Array]] = {}
  weights: dict[int, list[Array]] = {}
  for k, w in enumerate(leaves):
    together = []
    for j, (d, s) in enumerate(shared.shared[k]):
      if plan.rescaled[k][j]:
        arrays.setdefault(k, []).append(s)
        weights.setdefault(k, []).append(point[k].shared[j])
      else:
        together.append(times(d, s))
    at.append(sum(together[1:], together[0]) if together else zeros(w))
  pieces, formed = ascent
  moving = Gradient(
    {k: x for k, x in pieces.items() if k in plan.moved},
    {k: x for k, x in formed.items() if k in plan.moved},
  )
  scales = {k: point[k].own[ASCENT] for k in plan.moved}
  return at, Offset(moving, scales, weights, arrays)


def _next_state(
  factored: Factored,
  shared: Updated,
  after: _After,
  gradients: dict[str, Gradient],
  shares: Array,
  state: TrainState,
) -> Any:
  """The perturbation's new state, averaged over micro-batches."""
  leaves = jax.tree.leaves(state.params)
  own = iter(mean(after.state, shares))
  found = []
  for k, differs in enumerate(factored.plan.differs):
    if k not in shared.sums:
      found.append(next(own) if differs else shared.state[k])
      continue
    combination = shared.sums[k]
    coefficients = [Coefficients({}, []) for _ in leaves]
    coefficients[combination.index] = after.sums[k]
    terms: list[Terms] = [() for _ in leaves]
    terms[combination.index] = combination.shared
    totals = total(
      factored.clean, gradients, coefficients, terms, shares, leaves
    )
    found.append(totals[combination.index].astype(combination.dtype))
  return jax.tree.unflatten(jax.tree.structure(state.perturb_state), found)
