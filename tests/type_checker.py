"""The run-time type checker of the tests: an int is a float to it."""

import inspect
from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

_check = beartype(conf=BeartypeConf(is_pep484_tower=True))
_checked: dict[Any, tuple[Any, Callable[..., Any]]] = {}


def typechecker(function: Callable[..., Any]) -> Callable[..., Any]:
  """Checks a signature, once for all closures that have it.

  Whenever a factory makes its closures, jaxtyping hands over functions of their
  signatures that do nothing, and beartype takes milliseconds for each.
  """
  if function.__code__.co_filename != "<string>":  # not one of jaxtyping's
    return _check(function)
  signature = inspect.signature(function)
  parameters = signature.parameters.values()
  key = (
    function.__module__,
    function.__qualname__,
    function.__code__.co_code,
    signature.return_annotation,
    tuple((p.name, p.kind, p.annotation, id(p.default)) for p in parameters),
  )
  if key not in _checked:
    # The signature keeps the defaults, and so their ids, alive.
    _checked[key] = signature, _check(function)
  return _checked[key][1]
