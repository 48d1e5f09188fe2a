"""matfree's algorithms, with their loops in Python and compiled products.

XLA's CPU backend takes 20 times as long for a convolution inside a loop, and a
program that holds the loop would be compiled anew for every network. So the
loops run in Python (`disable_jit`), and the matrix-vector product is opaque to
them: a primitive that runs what it is given on concrete vectors.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.flatten_util import ravel_pytree
from jax.interpreters import batching
from jaxtyping import Array, Float

from forgetsam._arrays import at_least_float32, usual_promotion
from forgetsam._checks import check_real
from forgetsam._typing import PyTree

MatVec = Callable[[PyTree], PyTree]
FlatMatVec = Callable[[Float[Array, " n"]], Float[Array, " n"]]
Result = TypeVar("Result")

_product_p = Primitive("forgetsam_matrix_vector_product")


def run_algorithm(
  algorithm: Callable[[FlatMatVec, Float[Array, " n"]], Result],
  matvec: MatVec,
  like: PyTree,
  key: jax.Array,
) -> Result:
  """Runs an algorithm of a flat product and a flat vector of zeros.

  In at least float32 and the highest matmul precision; traced, loops and all,
  where `like` or the algorithm's key is.
  """
  check_real("a spectrum", like)
  leaves = jax.tree.leaves((like, key))
  wide = jax.tree.map(lambda x: jnp.zeros_like(at_least_float32(x)), like)
  zeros, unravel = ravel_pytree(wide)

  def product(v: Array) -> Array:
    return ravel_pytree(matvec(unravel(v)))[0].astype(v.dtype)

  with jax.default_matmul_precision("highest"), usual_promotion():
    if any(isinstance(x, jax.core.Tracer) for x in leaves):
      return algorithm(product, zeros)
    opaque = lambda v: _product_p.bind(v, product=product)  # noqa: E731
    with jax.disable_jit():
      return algorithm(opaque, zeros)


def _run(v: Array, *, product: FlatMatVec) -> Array:
  with jax.disable_jit(False):
    return product(v)


def _run_each(
  arguments: tuple[Array], axes: tuple[int], *, product: FlatMatVec
) -> tuple[Array, int]:
  """One after another: batched, they would hold all networks' activations."""
  vectors = jnp.moveaxis(arguments[0], axes[0], 0)
  return jnp.stack([_run(v, product=product) for v in vectors]), 0


_product_p.def_impl(_run)
_product_p.def_abstract_eval(
  lambda v, **_: jax.core.ShapedArray(v.shape, v.dtype)
)
batching.primitive_batchers[_product_p] = _run_each
