"""How long a step would take, by a small model of each platform.

A product of R rows with a matrix [D, H] takes its operations at the peak rate,
the reading of the matrix at the memory's, and a call. `costs.json` holds the
constants of each platform, as `benchmarks/m_sharpness.py --fit` writes them;
"other" was not measured, and goes by a GPU's operations and bytes.
"""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from forgetsam.training.factored._plan import Factored
from forgetsam.training.factored._products import Use, rows_of
from forgetsam.training.factored._program import Equation, Program, Value


class Costs(NamedTuple):
  """Microseconds of a platform's elementary work.

  Attributes:
    operation: of a floating-point operation in a large product.
    apart: of one in a product of which each micro-batch has its own.
    number: of a number read from or written to memory.
    call: of one operation's start, in a program.
    batched: of one small product of many.
    convolution: of a floating-point operation in a convolution.
  """

  operation: float
  apart: float
  number: float
  call: float
  batched: float
  convolution: float


TABLE = Path(__file__).with_name("costs.json")
COSTS = {
  platform: Costs(**row)
  for platform, row in json.loads(TABLE.read_text()).items()
}


class _Product(NamedTuple):
  operations: int  # of one forward pass of a micro-batch
  rows: int
  weights: int  # numbers of the matrix


def estimate(
  factored: Factored, count: int, cost: Costs
) -> tuple[float, float]:
  """Times of a step: its micro-batches together, and one after another."""
  network, n = factored.clean, count
  sizes = [
    math.prod(network.program.shapes[value].shape)
    for value in network.program.inputs[: network.num_leaves]
  ]
  numbers = sum(sizes)
  calls = sum(times for _, times in equations(network.program))
  values = activation_bytes(network.program) // 4

  def passes(micro_batches: int) -> float:
    """Time of all but products and weights, in two whole passes."""
    moved = 6 * values * micro_batches + 4 * numbers
    return 6 * calls * cost.call + moved * cost.number

  # Norm, offset, moved weights and sums of each micro-batch.
  apart = n * (passes(1) + 13 * numbers * cost.number)
  together = passes(n)
  for use, work in _products(factored):
    once = work.operations * cost.operation
    own = work.operations * (cost.apart if n > 1 else cost.operation)
    read = work.weights * cost.number
    native = once
    if use is not None and use.kind == "conv":
      native = work.operations * cost.convolution
    apart += n * 6 * (native + read)
    if use is None:
      together += n * 6 * once
      continue
    layers = math.prod(use.scanned)
    if use.leaf in network.uses:
      square = layers * rows_of(network.uses[use.leaf]) * work.rows
      together += 5 * (n * once + read)
      # Two Grams, and two products in each direction of the perturbed pass.
      together += n * 6 * layers * cost.batched
      together += n * 6 * square * (use.depth + use.width) * cost.apart
      together += n * 8 * square * cost.number
    else:
      # A gradient and a matrix of each micro-batch's own, which two passes use.
      together += 3 * (n * once + read)
      together += n * (3 * own + 3 * layers * cost.batched + 9 * read)
      if use.kind == "conv":
        patches = layers * use.rows * use.depth
        together += n * 10 * patches * cost.number
  return together, apart


def _products(factored: Factored) -> Iterator[tuple[Use | None, _Product]]:
  """Products with parameters, and the others together."""
  network = factored.clean
  known = {use.site: use for use in network.known}
  others = 0
  for site, equation, times in _sites(network.program):
    if equation.name not in ("dot_general", "conv_general_dilated", "gather"):
      continue
    use = known.get(site)
    if use is None:
      others += times * _operations(equation)
      continue
    layers = math.prod(use.scanned)
    matrix = use.depth * use.width
    work = 0 if use.kind == "gather" else 2 * use.rows * matrix
    yield use, _Product(layers * work, use.rows, layers * matrix)
  yield None, _Product(others, 0, 0)


def _operations(equation: Equation) -> int:
  """An estimate for a product of activations: attention, and the like."""
  if equation.name != "dot_general":
    return 0
  (contracted, _), _ = equation.params["dimension_numbers"]
  shape = equation.input_shapes[0].shape
  depth = math.prod(shape[k] for k in contracted)
  return 2 * math.prod(equation.shapes[0].shape) * depth


def activation_bytes(program: Program) -> int:
  """Bytes of all values that a forward pass makes."""
  return sum(
    times * bytes_of_shapes(equation.shapes)
    for equation, times in equations(program)
  )


def bytes_of(program: Program, some: Sequence[Value]) -> int:
  return bytes_of_shapes([program.shapes[value] for value in some])


def bytes_of_shapes(shapes: Iterable[Any]) -> int:
  total = 0
  for shape in shapes:
    size = getattr(getattr(shape, "dtype", None), "itemsize", 4)
    total += math.prod(getattr(shape, "shape", ())) * size
  return total


def equations(
  program: Program,
) -> Iterator[tuple[Equation, int]]:
  """All equations, and how often each is run."""
  return ((equation, times) for _, equation, times in _sites(program))


def _sites(
  program: Program, site: tuple[int, ...] = (), times: int = 1
) -> Iterator[tuple[tuple[int, ...], Equation, int]]:
  for i, equation in enumerate(program.equations):
    here = (*site, i)
    if equation.body is None:
      yield here, equation, times
    else:
      length = equation.params.get("length", 1)
      yield from _sites(equation.body, here, times * length)
