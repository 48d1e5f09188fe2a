"""The settings with which JAX stops at nan and at every promotion."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def strict_jax() -> Iterator[None]:
  with (
    jax.debug_nans(True),
    jax.numpy_rank_promotion("raise"),
    jax.numpy_dtype_promotion("strict"),
  ):
    yield
