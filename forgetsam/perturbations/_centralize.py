"""Gradient centralization: what is common to an output's weights goes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from forgetsam._arrays import at_least_float32


def centralize(axis: int = -1) -> optax.GradientTransformationExtraArgs:
  r"""Subtracts from each output's part of a gradient its mean.

  .. math:: g_{ij} \mapsto g_{ij} - \frac1n \sum_{k=1}^n g_{kj}

  with j along `axis`, and i and k along all others. Arrays with fewer than two
  axes, such as biases, stay as they are. It serves as a perturbation's piece,
  and in a chain with the optimizer.

  Args:
    axis: of outputs: the last in JAX's layouts, `[in, out]`, and 0 in
      PyTorch's, `[out, in]` (where `optax.centralize` is the same).

  Raises:
    ValueError: axis is not an integer, or an array with two axes or more has
      no such axis.

  Example:
    >>> transform, g = centralize(), jnp.array([[1.0, 5.0], [3.0, 5.0]])
    >>> print(transform.update(g, transform.init(g))[0])
    [[-1.  0.]
     [ 1.  0.]]

  References:
    Yong et al., *Gradient Centralization*, ECCV 2020, eq. (1).
  """
  if not isinstance(axis, (int, np.integer)) or isinstance(axis, bool):
    raise ValueError(f"axis={axis!r} must be an integer, such as -1 or 0")

  def subtract(g: Array) -> Array:
    if g.ndim < 2:
      return g
    if not -g.ndim <= axis < g.ndim:
      raise ValueError(
        f"axis={axis} is none of an array with the shape {g.shape}: pass the "
        "axis of outputs, -1 or 0"
      )
    wide = at_least_float32(g)
    others = tuple(i for i in range(g.ndim) if i != axis % g.ndim)
    mean = jnp.mean(wide, axis=others, keepdims=True)
    return (wide - jnp.broadcast_to(mean, g.shape)).astype(g.dtype)

  return optax.with_extra_args_support(
    optax.stateless(lambda updates, _: jax.tree.map(subtract, updates))
  )
