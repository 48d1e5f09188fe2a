"""Whether a step's micro-batches are taken together, and how many at once."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from forgetsam.training._micro_batches import Together
from forgetsam.training._micro_step import Examples, num_examples
from forgetsam.training._train_state import TrainState
from forgetsam.training.factored._costs import COSTS, activation_bytes, estimate
from forgetsam.training.factored._network import CannotFactorError
from forgetsam.training.factored._passes import Parts
from forgetsam.training.factored._step import (
  Factored,
  factored_step,
  plan_factored,
)
from forgetsam.training.factored._uses import rows_of

MODES = ("auto", "factored", "loop")
# Bytes that a chunk's activations and factors may take, at the least.
_LEAST_MEMORY = 256 * 2**20


class MSharpness(NamedTuple):
  """How a step takes its micro-batches.

  Attributes:
    how: "factored" or "loop".
    chunk: the examples that are taken together.
    reason: why.
    parameters: by path, "factored", or "formed" and why; empty for the loop.
  """

  how: str
  chunk: int
  reason: str
  parameters: dict[str, str]


class Decision(NamedTuple):
  """A choice with what it takes to act on it."""

  report: MSharpness
  together: Together | None


def decide(
  parts: Parts | None,
  mode: str,
  chunk: int | None,
  refusal: str | None,
  state: TrainState,
  micro_batch: Examples,
  count: int,
  key: jax.Array,
  platform: str,
) -> Decision:
  """Chooses from shapes, operations and the platform's costs alone.

  Args:
    mode: "auto", "factored" or "loop".
    chunk: examples to take together; `None` goes by memory.
    refusal: why the step cannot be factored, if that is known.
    count: a device's micro-batches.

  Raises:
    ValueError: `mode` is "factored" and the step cannot be, or the chunk is no
      multiple of the micro-batch that divides the device's share.
  """
  size = num_examples(micro_batch)

  def loop(reason: str) -> Decision:
    return Decision(MSharpness("loop", size, reason, {}), None)

  if mode == "loop":
    return loop("it was asked for")
  if mode == "auto" and count == 1:
    return loop("there is one micro-batch")
  try:
    if refusal is not None or parts is None:
      raise CannotFactorError(refusal or "nothing is perturbed")
    factored = plan_factored(parts, state, micro_batch, key)
  except CannotFactorError as error:
    if mode == "auto":
      return loop(str(error))
    raise ValueError(
      f'm_sharpness="factored" cannot run this step: {error}. Pass "auto", '
      "which takes the loop over micro-batches where it must"
    ) from error
  reason = "it was asked for"
  if mode == "auto":
    costs = COSTS.get(platform, COSTS["other"])
    together, apart = estimate(factored, count, costs)
    reason = f"about {apart / together:.1f} times as fast as the loop"
    if together > apart:
      return loop(f"factored would take {together / apart:.1f} times as long")
  micro_batches = _chunk(factored, size, count, chunk)
  paths = [
    jax.tree_util.keystr(path, simple=True, separator="/")
    for path, _ in jax.tree_util.tree_leaves_with_path(state.params)
  ]
  report = MSharpness(
    "factored",
    micro_batches * size,
    reason,
    dict(zip(paths, factored.clean.how, strict=True)),
  )
  step: Callable[..., Any] = functools.partial(factored_step, parts, factored)
  return Decision(report, Together(step, micro_batches))


def _chunk(factored: Factored, size: int, count: int, chunk: int | None) -> int:
  """Micro-batches to take together: they divide a device's."""
  if chunk is not None:
    if chunk % size or (count * size) % chunk:
      raise ValueError(
        f"m_sharpness_chunk={chunk} must be a multiple of the micro-batch of "
        f"{size} examples, and divide the per-device batch of {count * size}"
      )
    return chunk // size
  alone = activation_bytes(factored.perturbed.program)
  budget = max(2 * alone, _LEAST_MEMORY)
  most = max(1, budget // max(memory_of_one(factored), 1))
  return max(k for k in range(1, count + 1) if count % k == 0 and k <= most)


def memory_of_one(factored: Factored) -> int:
  """Bytes that a micro-batch takes beside others: an upper estimate."""
  network = factored.clean
  total = activation_bytes(factored.perturbed.program)
  for k in network.formed:
    # The gradient, and the moved weights.
    total += (
      3 * 4 * math.prod(network.program.shapes[network.program.inputs[k]].shape)
    )
  for uses in network.uses.values():
    rows = rows_of(uses)
    layers = math.prod(uses[0].scanned)
    factors = rows * (uses[0].depth + uses[0].width) + 4 * rows * rows
    total += 4 * layers * factors
  return total
