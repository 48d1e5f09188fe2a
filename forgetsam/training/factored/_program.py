"""A traced function as a flat list of equations, calls inlined."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from jax.extend import core
from jaxtyping import Array

# Calls that mean the same without their boundary. A `custom_jvp_call` does not:
# its derivative is its own.
_CALLS = ("jit", "pjit", "closed_call", "core_call")
_REMAT = ("checkpoint", "remat", "remat2")


class Value(NamedTuple):
  """A value that an equation makes, or an input; its number in the program."""

  number: int


class Equation(NamedTuple):
  """One operation. A loop or a rematerialised block has a program as `body`."""

  primitive: Any
  params: dict[str, Any]
  context: Any
  inputs: tuple[Any, ...]  # values, or constants as they are
  outputs: tuple[Value, ...]
  shapes: tuple[Any, ...]  # of the outputs
  input_shapes: tuple[Any, ...]
  body: "Program | None" = None

  @property
  def name(self) -> str:
    return self.primitive.name

  @property
  def is_remat(self) -> bool:
    return self.name in _REMAT

  def bind(self, *arguments: Any) -> list[Array]:
    bound = self.primitive.get_bind_params(self.params)
    with contextlib.ExitStack() as stack:
      if self.context is not None:
        stack.enter_context(self.context.manager)
      found = self.primitive.bind(*arguments, **bound)
    return list(found) if self.primitive.multiple_results else [found]


class Program(NamedTuple):
  """Equations in order, from the inputs to the outputs."""

  inputs: tuple[Value, ...]
  equations: tuple[Equation, ...]
  outputs: tuple[Any, ...]  # values, or constants as they are
  shapes: dict[Value, Any]  # of every value: shape and dtype


def flatten(closed: core.ClosedJaxpr) -> Program:
  equations: list[Equation] = []
  shapes: dict[Value, Any] = {}
  numbers = iter(range(10**9))

  def new(variable: Any) -> Value:
    value = Value(next(numbers))
    shapes[value] = variable.aval
    return value

  inputs = tuple(new(v) for v in closed.jaxpr.invars)
  outputs = _inline(closed, inputs, new, equations)
  return Program(inputs, tuple(equations), tuple(outputs), shapes)


def _inline(
  closed: core.ClosedJaxpr,
  arguments: Sequence[Any],
  new: Callable[[Any], Value],
  equations: list[Equation],
) -> list[Any]:
  found: dict[Any, Any] = {}
  found.update(zip(closed.jaxpr.constvars, closed.consts, strict=True))
  found.update(zip(closed.jaxpr.invars, arguments, strict=True))

  def read(atom: Any) -> Any:
    return atom.val if isinstance(atom, core.Literal) else found[atom]

  for equation in closed.jaxpr.eqns:
    inputs = tuple(read(v) for v in equation.invars)
    inner = _inner(equation)
    if inner is not None and equation.primitive.name in _CALLS:
      outputs: Sequence[Any] = _inline(inner, inputs, new, equations)
    else:
      outputs = tuple(new(v) for v in equation.outvars)
      equations.append(
        Equation(
          equation.primitive,
          equation.params,
          equation.ctx,
          inputs,
          tuple(outputs),
          tuple(v.aval for v in equation.outvars),
          tuple(v.aval for v in equation.invars),
          None if inner is None else flatten(inner),
        )
      )
    found.update(zip(equation.outvars, outputs, strict=True))
  return [read(v) for v in closed.jaxpr.outvars]


def _inner(equation: core.JaxprEqn) -> core.ClosedJaxpr | None:
  """The jaxpr of a call, a loop over layers, or a rematerialised block."""
  name = equation.primitive.name
  if name not in (*_CALLS, *_REMAT, "scan"):
    return None
  inner: Any = equation.params.get("jaxpr")
  if inner is None:
    inner = equation.params["call_jaxpr"]
  if hasattr(inner, "consts"):
    return inner
  return core.ClosedJaxpr(inner, ())


def num_consts_and_carry(scan: Equation) -> tuple[int, int]:
  """How many inputs of a scan stay, and how many it carries on."""
  params = scan.params
  if "num_consts" in params:
    return params["num_consts"], params["num_carry"]
  consts, carry, _ = params["ft_in"].unpack()  # since jax 0.11
  return len(consts), len(carry)


def values(atoms: Sequence[Any]) -> Iterator[Value]:
  return (atom for atom in atoms if isinstance(atom, Value))
