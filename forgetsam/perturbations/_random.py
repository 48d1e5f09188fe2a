"""Random directions, reproducible over steps, micro-batches and devices."""

import math
from typing import NamedTuple
from zlib import crc32

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from forgetsam._arrays import at_least_float32
from forgetsam._checks import check_seed
from forgetsam._typing import PyTree
from forgetsam.perturbations._sam import scale_to_radius


class GaussianDirectionState(NamedTuple):
  """State of `gaussian_direction`."""

  key: jax.Array
  count: Int[Array, ""]  # type: ignore[assignment]  # mypy: tuple.count


def gaussian_direction(
  seed: int | Array,
) -> optax.GradientTransformationExtraArgs:
  r"""Replaces the ascent gradient by independent standard normal entries.

  .. math:: g \mapsto \xi, \qquad \xi_i \sim \mathcal N(0, 1)

  A compiled step computes no ascent gradient. The noise depends on the seed,
  the update count, the extra argument `micro_batch` (the global index, 0 by
  default), and each array's *path*: not on its neighbours, nor on the number of
  devices.

  Args:
    seed: of the noise; an integer in [0, 2**32), or an integer array. The real
      and imaginary parts of complex arrays are entries of their own.

  Raises:
    ValueError: seed is no integer, or JAX would fold it into that range.

  Example:
    >>> transform = gaussian_direction(seed=0)
    >>> g = {"w": jnp.zeros(3)}
    >>> noise, _ = transform.update(g, transform.init(g), micro_batch=1)
    >>> noise["w"].shape
    (3,)
  """
  check_seed("seed", seed)

  def init_fn(params: PyTree) -> GaussianDirectionState:
    return GaussianDirectionState(
      jax.random.key(seed), jnp.zeros((), jnp.int32)
    )

  def update_fn(
    updates: PyTree,
    state: GaussianDirectionState,
    params: object = None,
    *,
    micro_batch: int | Array = 0,
    **extra: object,
  ) -> tuple[PyTree, GaussianDirectionState]:
    step_key = jax.random.fold_in(state.key, state.count)
    key = jax.random.fold_in(step_key, micro_batch)

    def draw(path: tuple, g: Array) -> Array:
      leaf_key = jax.random.fold_in(
        key, crc32(jax.tree_util.keystr(path).encode())
      )
      dtype = at_least_float32(g).dtype
      noise = jax.random.normal(leaf_key, g.shape, dtype)
      # JAX's complex normal has variance 1 over both parts together.
      noise = noise * math.sqrt(2) if jnp.iscomplexobj(g) else noise
      return noise.astype(g.dtype)

    noise = jax.tree_util.tree_map_with_path(draw, updates)
    count = optax.safe_increment(state.count)
    return noise, GaussianDirectionState(state.key, count)

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def random_perturbation(
  rho: optax.ScalarOrSchedule, seed: int | Array
) -> optax.GradientTransformationExtraArgs:
  r"""A Gaussian direction of length rho, fresh for step and micro-batch.

  .. math:: \delta = \rho_t\, \xi / \lVert \xi \rVert_2, \qquad
     \xi_i \sim \mathcal N(0, 1)

  Args:
    rho: radius; a float, at least 0, or a schedule of the update count.
    seed: of the noise, as in `gaussian_direction`.

  Raises:
    ValueError: rho is negative or nan, or seed is refused.

  Example:
    >>> perturbation, g = random_perturbation(0.5, seed=0), jnp.zeros(100)
    >>> delta, _ = perturbation.update(g, perturbation.init(g))
    >>> round(float(jnp.linalg.norm(delta)), 6)
    0.5
  """
  return optax.chain(gaussian_direction(seed), scale_to_radius(rho))
