"""An update of `perturb` on gradients that are not formed.

The perturbation and the combine rule run as they are, on a `Combination` in
place of each array of a gradient. What they compute of it is a few numbers for
each micro-batch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from jaxtyping import Array

from forgetsam._combination import (
  Combination,
  Terms,
  is_combination,
)
from forgetsam._typing import PyTree
from forgetsam.training._train_state import TrainState
from forgetsam.training.factored._network import (
  CannotFactorError,
  same_structure,
)

ASCENT, PERTURBED = "ascent", "perturbed"


class Numbers(NamedTuple):
  """The numbers of one micro-batch that an update reads.

  Attributes:
    micro_batch: its index, over all devices.
    loss: at the perturbed point.
    scales: by name, what the gradient's length was divided by before products
      were taken.
    product: of two scaled gradients, in one array.
    with_array: of a scaled gradient and an array.
  """

  micro_batch: Array
  loss: Array
  scales: dict[str, Array]
  product: Callable[[int, str, str], Array]
  with_array: Callable[[int, str, Array], Array]


class Moved(NamedTuple):
  """A tree of combinations, array by array, as in `Combination`."""

  coefficients: list[dict[str, Any]]
  shared: list[Terms]


class Updated(NamedTuple):
  """Results of an update for one micro-batch."""

  point: Moved  # where it evaluates the gradient
  result: Moved
  state: list[Any]  # the new state's arrays, `None` for combinations
  sums: dict[int, Combination]  # the state's


def run_update(
  perturb: optax.GradientTransformationExtraArgs,
  state: TrainState,
  numbers: Numbers,
  *,
  whole: bool,
) -> Updated:
  """Runs `perturb.update` for one micro-batch.

  Args:
    whole: whether the perturbed gradient counts as 1 times itself, a number
      that is known before the step runs.
  """
  leaves = jax.tree.leaves(state.params)
  tree = jax.tree.structure(state.params)
  points: list[PyTree] = []

  class Known:
    def of_two(self, index: int, left: str, right: str) -> Array:
      return numbers.product(index, left, right)

    def with_array(self, index: int, gradient: str, array: Array) -> Array:
      return numbers.with_array(index, gradient, array)

  def gradient(name: str, scale: Any) -> PyTree:
    return jax.tree.unflatten(
      tree,
      [
        Combination(Known(), k, leaf, {name: scale})
        for k, leaf in enumerate(leaves)
      ],
    )

  def value_and_grad_fn(point: PyTree) -> tuple[Array, PyTree]:
    if points:
      raise CannotFactorError("it evaluates the gradient at several points")
    points.append(point)
    scale = 1.0 if whole else numbers.scales[PERTURBED]
    return numbers.loss, gradient(PERTURBED, scale)

  def others(*_: Any) -> Any:
    raise CannotFactorError("it evaluates other functions than the gradient")

  result, new_state = perturb.update(
    gradient(ASCENT, numbers.scales[ASCENT]),
    state.perturb_state,
    state.params,
    grad_fn=lambda point: value_and_grad_fn(point)[1],
    value_and_grad_fn=value_and_grad_fn,
    ascent_fn=others,
    losses_fn=others,
    micro_batch=numbers.micro_batch,
    opt_state=state.opt_state,
  )
  if not points:
    raise CannotFactorError("it evaluates no gradient")
  state_leaves = jax.tree.leaves(new_state)
  if not same_structure(new_state, state.perturb_state):
    raise CannotFactorError("its state changes its structure")
  return Updated(
    point=_moved(jax.tree.leaves(points[0])),
    result=_moved(jax.tree.leaves(result)),
    state=[None if is_combination(x) else x for x in state_leaves],
    sums={k: x for k, x in enumerate(state_leaves) if is_combination(x)},
  )


def _moved(leaves: list[Any]) -> Moved:
  return Moved(
    [x.coefficients if is_combination(x) else {} for x in leaves],
    [x.shared if is_combination(x) else ((1.0, x),) for x in leaves],
  )
