"""Turns: what is renewed every so many updates that perturb.

Where a step is idle, floating-point state waits and integers go on (`_passes`).
So the age of a memory is a float, and waits with it.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def is_turn(age: Float[Array, ""], every: int) -> Bool[Array, ""]:
  """Whether an age is at least 0 and a multiple."""
  age = jnp.round(age)
  return (age >= 0) & (age % every == 0)


def older(age: Float[Array, ""], every: int) -> Float[Array, ""]:
  """An update more, below 2 `every`: float32 counts no further than 2**24."""
  age = jnp.round(age) + 1
  return jnp.where(age >= 2 * every, age - every, age)
