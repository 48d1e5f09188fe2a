"""The facts of a step that are known before it runs."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.interpreters import partial_eval
from jaxtyping import Array

from forgetsam._arrays import at_least_float32, is_float
from forgetsam._combination import NotACombinationError
from forgetsam.training._micro_step import Examples, Parts, first_examples
from forgetsam.training._train_state import TrainState
from forgetsam.training.factored._network import (
  CannotFactorError,
  Network,
  agree,
  trace_network,
)
from forgetsam.training.factored._update import (
  ASCENT,
  PERTURBED,
  Moved,
  Numbers,
  run_update,
)

# A state that differs between micro-batches is kept for each of them.
_MOST_NUMBERS = 4096


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
    reason = str(error).partition("\n")[0].rstrip(".")
    # JAX's own words name an object of this package, and its address.
    told = "" if "Combination object" in reason else f": {reason}"
    raise CannotFactorError(
      f"it reads more than norms of the ascent gradient{told}"
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


class Factored(NamedTuple):
  """How a step's micro-batches are taken together.

  Attributes:
    clean: the network at the parameters.
    perturbed: the network at the perturbed parameters, in float32 at least.
    plan: what the update of `perturb` reads and returns.
  """

  clean: Network
  perturbed: Network
  plan: Plan


def plan_factored(
  parts: Parts, state: TrainState, micro_batch: Examples, key: jax.Array
) -> Factored:
  """Traces a step for one micro-batch, to see whether it can be factored.

  Raises:
    CannotFactorError: it cannot; the reason.
  """
  leaves = jax.tree.leaves(state.params)
  if not all(jnp.issubdtype(x.dtype, jnp.floating) for x in leaves):
    raise CannotFactorError("a parameter is complex or an integer")
  plan = plan_update(parts.perturb, state)
  wide = jax.tree.map(at_least_float32, state.params)
  examples = first_examples(micro_batch, parts.ascent_fraction)
  clean = trace_network(
    parts.forward, state.params, state.model_state, examples.inputs, key
  )
  same_dtypes = all(
    x.dtype == y.dtype
    for x, y in zip(leaves, jax.tree.leaves(wide), strict=True)
  )
  if examples is micro_batch and same_dtypes:
    return Factored(clean, clean, plan)
  perturbed = trace_network(
    parts.forward, wide, state.model_state, micro_batch.inputs, key
  )
  return Factored(*agree(clean, perturbed), plan)
