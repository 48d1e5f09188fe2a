"""Whether a step's micro-batches are taken together, and how many at once."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from forgetsam._arrays import path_name
from forgetsam.training._micro_batches import Share, Together, several
from forgetsam.training._micro_step import Parts, num_examples
from forgetsam.training._train_state import TrainState
from forgetsam.training.factored._costs import (
  COSTS,
  activation_bytes,
  bytes_of,
  estimate,
)
from forgetsam.training.factored._network import CannotFactorError
from forgetsam.training.factored._plan import Factored, plan_factored
from forgetsam.training.factored._products import rows_of
from forgetsam.training.factored._step import factored_step

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
  parts: Parts,
  mode: str,
  chunk: int | None,
  refusal: str | None,
  state: TrainState,
  share: Share,
  *,
  tries: bool,
) -> Decision:
  """Chooses from shapes, operations and the platform's costs alone.

  Args:
    mode: "auto", "factored" or "loop".
    chunk: examples to take together; `None` goes by memory.
    refusal: why the step cannot be factored, if that is known.
    tries: whether to trace the step in factors; "auto" always does.

  Raises:
    ValueError: `mode` is "factored" and the step cannot be, or the chunk is no
      multiple of the micro-batch that divides the device's share.
  """
  size = num_examples(share.first)

  def loop(reason: str) -> Decision:
    return Decision(MSharpness("loop", size, reason, {}), None)

  if mode == "loop":
    return loop("it was asked for")
  if mode == "auto" and share.number == 1:
    return loop("there is one micro-batch")
  if chunk is not None:
    _check_chunk(chunk, size, share.number)
  try:
    if refusal is not None:
      raise CannotFactorError(refusal)
    key = jax.random.fold_in(share.key, share.first_index)
    factored = plan_factored(parts, state, share.first, key)
    reason = "it was asked for"
    if mode == "auto":
      fast, slow = _times(factored, share)
      if fast > slow:
        return loop(f"factored would take {fast / slow:.1f} times as long")
      reason = f"about {slow / fast:.1f} times as fast as the loop"
    if chunk is None:
      chunk = size * _most(factored, share.number)
    step: Callable[..., Any] = functools.partial(factored_step, parts, factored)
    if mode == "auto" or tries:
      _try(Together(step, 1), state, share)
  except Exception as error:
    if mode == "auto":
      return loop(_first_line(error))
    if not isinstance(error, CannotFactorError):
      raise
    raise ValueError(
      f'm_sharpness="factored" cannot run this step: {error}. Pass "auto", '
      "which takes the loop over micro-batches where it must"
    ) from error
  paths = [
    path_name(path)
    for path, _ in jax.tree_util.tree_leaves_with_path(state.params)
  ]
  report = MSharpness(
    "factored",
    chunk,
    reason,
    dict(zip(paths, factored.clean.how, strict=True)),
  )
  return Decision(report, Together(step, chunk // size))


def _times(factored: Factored, share: Share) -> tuple[float, float]:
  costs = COSTS.get(share.platform, COSTS["other"])
  return estimate(factored, share.number, costs)


def _try(together: Together, state: TrainState, share: Share) -> None:
  """Traces the work on one micro-batch.

  Raises:
    CannotFactorError: JAX cannot, such as for an operation without `vmap`.
  """
  step = several(together, state, share)
  one = jax.tree.map(lambda x: x[None], share.first)
  try:
    jax.eval_shape(lambda: step(state.model_state, one, 0))
  except Exception as error:  # of functions that may not be ours
    raise CannotFactorError(
      f"its micro-batches cannot be taken side by side: {_first_line(error)}"
    ) from error


def _first_line(error: Exception) -> str:
  return str(error).partition("\n")[0]


def _check_chunk(chunk: int, size: int, count: int) -> None:
  if chunk % size or (count * size) % chunk:
    raise ValueError(
      f"m_sharpness_chunk={chunk} must be a multiple of the micro-batch of "
      f"{size} examples, and divide the per-device batch of {count * size}"
    )


def _most(factored: Factored, count: int) -> int:
  """Micro-batches to take together by memory: they divide a device's."""
  alone = activation_bytes(factored.perturbed.program)
  program = factored.perturbed.program
  params = program.inputs[: factored.perturbed.num_leaves]
  budget = max(2 * alone, _LEAST_MEMORY) + 2 * bytes_of(program, params)
  most = max(1, budget // max(memory_of_one(factored), 1))
  return max(k for k in range(1, count + 1) if count % k == 0 and k <= most)


def memory_of_one(factored: Factored) -> int:
  """Bytes that a micro-batch takes beside others: an upper estimate."""
  network, program = factored.clean, factored.perturbed.program
  total = activation_bytes(program)
  total += bytes_of(program, program.inputs[network.num_leaves :])
  # The gradients, and the moved weights.
  total += 3 * bytes_of(program, [program.inputs[k] for k in network.formed])
  for use in network.sites.values():
    if use.kind == "conv" and use.leaf not in network.uses:
      total += 4 * math.prod(use.scanned) * use.rows * use.depth  # patches
  for uses in network.uses.values():
    rows = rows_of(uses)
    layers = math.prod(uses[0].scanned)
    factors = rows * (uses[0].depth + uses[0].width) + 4 * rows * rows
    total += 4 * layers * factors
  return total
