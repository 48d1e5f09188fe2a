"""Evaluation of a program in which some products are done in another way."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jaxtyping import Array

from forgetsam._typing import PyTree
from forgetsam.training.factored._products import Site, Use
from forgetsam.training.factored._program import (
  Equation,
  Program,
  Value,
  num_consts_and_carry,
  values,
)

# (use, equation, operands, what was given for its site) -> (output, findings)
Product = Callable[[Use, Equation, list[Array], PyTree], tuple[Array, PyTree]]


class Products(NamedTuple):
  """The products to do in another way, and how."""

  uses: Mapping[Site, Use]
  product: Product

  def inside(self, site: Site) -> bool:
    return any(other[: len(site)] == site for other in self.uses)


def evaluate(
  program: Program,
  arguments: Sequence[Any],
  products: Products,
  given: Mapping[Site, PyTree],
  *,
  until: frozenset[int] = frozenset(),
) -> tuple[dict[Value, Any], dict[Site, PyTree]]:
  """Evaluates a program; returns all its values, and what products found.

  `given` holds a tree for each site, stacked along the scans that it is in, and
  the findings come stacked alike. Equations in `until` are left out.
  """
  found: dict[Site, PyTree] = {}
  known = dict(zip(program.inputs, arguments, strict=True))
  for i, equation in enumerate(program.equations):
    if i in until:
      continue
    operands = read(known, equation.inputs)
    outputs = _run(equation, (i,), operands, products, given, found)
    known.update(zip(equation.outputs, outputs, strict=True))
  return known, found


def read(known: Mapping[Value, Any], atoms: Sequence[Any]) -> list[Any]:
  return [known[a] if isinstance(a, Value) else a for a in atoms]


def _run(
  equation: Equation,
  site: Site,
  operands: list[Any],
  products: Products,
  given: Mapping[Site, PyTree],
  found: dict[Site, PyTree],
) -> list[Any]:
  if site in products.uses:
    use = products.uses[site]
    output, finding = products.product(use, equation, operands, given.get(site))
    found[site] = finding
    return [output]
  if equation.body is None or not products.inside(site):
    return equation.bind(*operands)
  inner = Products(_within(site, products.uses), products.product)
  inner_given = _within(site, given)
  run = _scan if equation.name == "scan" else _remat
  outputs, inner_found = run(equation, operands, inner, inner_given)
  found.update({(*site, *rest): x for rest, x in inner_found.items()})
  return outputs


def _within(site: Site, trees: Mapping[Site, Any]) -> dict[Site, Any]:
  n = len(site)
  return {other[n:]: x for other, x in trees.items() if other[:n] == site}


def _body(
  equation: Equation,
  arguments: Sequence[Any],
  products: Products,
  given: Mapping[Site, PyTree],
) -> tuple[list[Any], dict[Site, PyTree]]:
  body = equation.body
  assert body is not None
  known, found = evaluate(body, arguments, products, given)
  return read(known, body.outputs), found


def _remat(
  equation: Equation,
  operands: list[Any],
  products: Products,
  given: dict[Site, PyTree],
) -> tuple[list[Any], dict[Site, PyTree]]:
  run = jax.checkpoint(
    lambda arguments, extra: _body(equation, arguments, products, extra),
    prevent_cse=equation.params["prevent_cse"],
    policy=equation.params["policy"],
  )
  return run(operands, given)


def _scan(
  equation: Equation,
  operands: list[Any],
  products: Products,
  given: dict[Site, PyTree],
) -> tuple[list[Any], dict[Site, PyTree]]:
  params = equation.params
  num_consts, num_carry = num_consts_and_carry(equation)
  consts = operands[:num_consts]
  carry = operands[num_consts : num_consts + num_carry]

  def body(carry: list[Any], xs: Any) -> Any:
    stacked, extra = xs
    arguments = [*consts, *carry, *stacked]
    outputs, found = _body(equation, arguments, products, extra)
    return outputs[:num_carry], (outputs[num_carry:], found)

  carry, (outputs, found) = jax.lax.scan(
    body,
    carry,
    (operands[num_consts + num_carry :], given),
    length=params["length"],
    reverse=params["reverse"],
    unroll=params["unroll"],
  )
  return [*carry, *outputs], found


class Later(NamedTuple):
  """The part of a program that depends on some inputs, and what it reads."""

  equations: tuple[int, ...]
  reads: tuple[Value, ...]
  depends: frozenset[Value]


def later_part(
  program: Program, inputs: Sequence[Value], outputs: Sequence[Any]
) -> Later:
  """Splits off what depends on `inputs`, and is needed for `outputs`."""
  depends = set(inputs)
  equations, reads = [], []
  for i, equation in enumerate(program.equations):
    if depends.isdisjoint(values(equation.inputs)):
      continue
    equations.append(i)
    depends.update(equation.outputs)
    reads += [v for v in values(equation.inputs) if v not in depends]
  reads += [v for v in values(outputs) if v not in depends]
  return Later(
    tuple(equations), tuple(dict.fromkeys(reads)), frozenset(depends)
  )


def run_later(
  program: Program, later: Later, known: dict[Value, Any]
) -> dict[Value, Any]:
  """Evaluates the later part, from what it reads and the inputs."""
  known = dict(known)
  for i in later.equations:
    equation = program.equations[i]
    outputs = equation.bind(*read(known, equation.inputs))
    known.update(zip(equation.outputs, outputs, strict=True))
  return known
