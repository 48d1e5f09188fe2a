"""Masks that are drawn anew, for `only`."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from forgetsam._checks import check_choice, check_number, check_seed
from forgetsam._typing import PyTree, Scalar
from forgetsam.perturbations._random import (
  GaussianDirectionState,
  gaussian_direction,
  key_at,
  update_key,
)


def random_mask(
  probability: Scalar, seed: int | Array, of: str = "entries"
) -> optax.GradientTransformationExtraArgs:
  r"""A mask for `only` that keeps entries, or whole arrays, at random.

  .. math:: M_i = 1 \text{ with probability } \beta, \text{ and } 0 \text{
     otherwise, independently}

  It is drawn anew for every step and micro-batch, as `gaussian_direction`'s
  noise is: from the seed, the update count, the extra argument `micro_batch`
  and each array's path.

  Args:
    probability: of being kept, in [0, 1].
    seed: an integer in [0, 2**32), or an integer array.
    of: "entries" or "arrays", what is kept or dropped as one.

  Raises:
    ValueError: probability is outside [0, 1], seed is no such integer, or `of`
      is neither.

  Example:
    >>> from forgetsam import only, sam
    >>> mask = random_mask(0.5, seed=0)
    >>> g = jnp.ones(1000)
    >>> kept, _ = mask.update(g, mask.init(g))
    >>> 450 < int(kept.sum()) < 550
    True
    >>> perturbation = only(sam(rho=1.0), mask)  # half of the entries
  """
  check_number("probability", probability, low=0, high=1)
  check_seed("seed", seed)
  check_choice("of", of, ("entries", "arrays"))

  def update_fn(
    updates: PyTree,
    state: GaussianDirectionState,
    params: object = None,
    *,
    micro_batch: int | Array = 0,
    **extra: object,
  ) -> tuple[PyTree, GaussianDirectionState]:
    key = update_key(state, micro_batch)

    def draw(path: tuple, g: Array) -> Array:
      shape = g.shape if of == "entries" else ()
      drawn = jax.random.uniform(key_at(path, key), shape)
      return drawn < jnp.asarray(probability).astype(drawn.dtype)

    kept = jax.tree_util.tree_map_with_path(draw, updates)
    count = optax.safe_increment(state.count)
    return kept, GaussianDirectionState(state.key, count)

  init_fn = gaussian_direction(seed).init
  return optax.GradientTransformationExtraArgs(init_fn, update_fn)
