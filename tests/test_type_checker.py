"""Signatures checked once for all closures stay told apart."""

from typing import Any

import jax.numpy as jnp
import pytest
from jaxtyping import Array, Float, Int, TypeCheckError, jaxtyped
from type_checker import typechecker


def closure(kind: Any, default: Any = None) -> Any:
  @jaxtyped(typechecker=typechecker)
  def read(x: kind, y: Any = default) -> kind:
    return x if y is None else y

  return read


@pytest.mark.parametrize("_", range(2))  # made anew, and from the cache
def test_closures_of_one_name_keep_their_own_types_and_defaults(_: int):
  floats, ints = jnp.ones(2), jnp.ones(2, int)
  for kind, good, bad in [(Float, floats, ints), (Int, ints, floats)]:
    read = closure(kind[Array, " n"])
    assert read(good) is good
    with pytest.raises(TypeCheckError, match="parameters"):
      read(bad)
    with pytest.raises(TypeCheckError, match="return value"):
      closure(kind[Array, " n"], bad)(good)
