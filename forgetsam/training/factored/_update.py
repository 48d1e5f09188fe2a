"""An update of `perturb` on gradients that are not formed.

The perturbation and the combine rule run as they are, on a `Combination` in
place of each array of a gradient. What they compute of it is a few numbers for
each micro-batch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.interpreters import partial_eval
from jaxtyping import Array

from forgetsam._arrays import is_float
from forgetsam._combination import (
  Combination,
  NotACombinationError,
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
# A state that differs between micro-batches is kept for each of them.
_MOST_NUMBERS = 4096


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


class Plan(NamedTuple):
  """The facts of an update that are known before it runs.

  Attributes:
    perturb: the transform whose update it is.
    needs: of pairs of gradients, the arrays whose inner products it reads.
    moved: the arrays that have an offset of each micro-batch.
    factor: the result is this number times the perturbed gradient; `None`
      where it differs from one micro-batch to the next.
    differs: which arrays of the new state differ between micro-batches.
    rescaled: for each array, which of the terms that its points share differ
      in their weight.
  """

  perturb: optax.GradientTransformationExtraArgs
  needs: dict[tuple[str, str], frozenset[int]]
  moved: tuple[int, ...]
  factor: float | None
  differs: list[bool]
  rescaled: list[list[bool]]

  @property
  def needs_at_point(self) -> dict[tuple[str, str], frozenset[int]]:
    """Those that are known before the perturbed pass."""
    pair = (ASCENT, ASCENT)
    return {pair: self.needs[pair]} if pair in self.needs else {}


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


def plan_update(
  perturb: optax.GradientTransformationExtraArgs | None, state: TrainState
) -> Plan:
  """Runs an update on shapes, to learn whether and how it can be factored.

  Raises:
    CannotFactorError: the perturbation reads more of the gradient than its
      direction and norms, or offsets differ in another way.
  """
  if perturb is None:
    raise CannotFactorError("nothing is perturbed")
  needs: dict[tuple[str, str], set[int]] = {}
  seen: dict[str, Any] = {}
  num_leaves = len(jax.tree.leaves(state.params))

  def update(alone: dict[str, Any], state: TrainState) -> Any:
    def product(index: int, left: str, right: str) -> Array:
      pair = (left, right) if left <= right else (right, left)
      needs.setdefault(pair, set()).add(index)
      return alone["products"][index]

    numbers = Numbers(
      micro_batch=alone["index"],
      loss=alone["loss"],
      scales=alone["scales"],
      product=product,
      with_array=lambda k, name, array: alone["products"][k],
    )
    found = run_update(perturb, state, numbers, whole=True)
    seen["factor"] = _factor(found.result)
    seen["found"] = found
    for coefficients in found.point.coefficients:
      if not coefficients.keys() <= {ASCENT}:
        raise CannotFactorError("its point reads the perturbed gradient")
    terms = [*found.point.shared, *found.result.shared]
    terms += [x.shared for x in found.sums.values()]
    arrays = [s for some in terms for _, s in some]
    weights = [[d for d, _ in some] for some in found.point.shared]
    return arrays, weights, found.state

  one = jnp.ones((), jnp.float32)
  alone = {
    "index": jnp.zeros((), jnp.int32),
    "loss": one,
    "scales": {ASCENT: one, PERTURBED: one},
    "products": jnp.ones(num_leaves, jnp.float32),
  }
  try:
    closed, shapes = jax.make_jaxpr(update, return_shape=True)(alone, state)
  except CannotFactorError:
    raise
  except NotACombinationError as error:
    raise CannotFactorError(str(error)) from error
  except Exception as error:
    # Whatever it is, the loop runs the same update on arrays, and says so.
    reason = str(error).partition("\n")[0]
    raise CannotFactorError(
      f"it reads more than norms of the ascent gradient: {reason}"
    ) from error
  num_alone = len(jax.tree.leaves(alone))
  differ = jax.tree.unflatten(
    jax.tree.structure(shapes), _differ(closed, num_alone)
  )
  if any(differ[0]):
    raise CannotFactorError(
      "its offset differs between micro-batches by an array"
    )
  differs = [x is not None and x for x in differ[2]]
  for x, apart in zip(shapes[2], differs, strict=True):
    if apart and is_float(x) and x.size > _MOST_NUMBERS:
      raise CannotFactorError("its state is an array of each micro-batch")
  return Plan(
    perturb=perturb,
    needs={pair: frozenset(arrays) for pair, arrays in needs.items()},
    moved=tuple(
      k for k, c in enumerate(seen["found"].point.coefficients) if ASCENT in c
    ),
    factor=seen["factor"],
    differs=differs,
    rescaled=differ[1],
  )


def _factor(result: Moved) -> float | None:
  """The number that the result is of the perturbed gradient, if it is one."""
  if any(result.shared):
    return None
  found = set()
  for coefficients in result.coefficients:
    if coefficients.keys() != {PERTURBED}:
      return None
    number = coefficients[PERTURBED]
    if not isinstance(number, (int, float)):
      return None
    found.add(float(number))
  return found.pop() if len(found) == 1 else None


def _differ(closed: Any, num_alone: int) -> list[bool]:
  """Which outputs depend on the first inputs, those of one micro-batch."""
  found = []
  count = len(closed.jaxpr.outvars)
  for k in range(count):
    wanted = [i == k for i in range(count)]
    _, used = partial_eval.dce_jaxpr(closed.jaxpr, wanted)
    found.append(any(used[:num_alone]))
  return found
