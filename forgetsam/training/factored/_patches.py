"""A convolution's input as rows, which a matrix of its weights multiplies."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from forgetsam.training.factored._products import Use


def patches(use: Use, params: dict[str, Any], x: Array) -> Array:
  """The inputs that each output of a convolution reads: [positions, depth].

  By slices: XLA's own patches are a convolution with an identity.
  """
  numbers = params["dimension_numbers"]
  batch, feature, *space = numbers.lhs_spec
  x = x.transpose(batch, *space, feature)
  padding = [(0, 0), *params["padding"], (0, 0)]
  x = jnp.pad(x, padding)
  _, in_axis, *window_axes = numbers.rhs_spec
  window = [use.shape[k] for k in window_axes]
  strides, dilation = params["window_strides"], params["rhs_dilation"]
  sizes = [
    (n - (w - 1) * d - 1) // s + 1
    for n, w, d, s in zip(x.shape[1:-1], window, dilation, strides, strict=True)
  ]
  found = []
  for offset in _offsets(window):
    start = [o * d for o, d in zip(offset, dilation, strict=True)]
    stop = [
      a + (n - 1) * s + 1 for a, n, s in zip(start, sizes, strides, strict=True)
    ]
    found.append(
      jax.lax.slice(
        x,
        (0, *start, 0),
        (x.shape[0], *stop, x.shape[-1]),
        (1, *strides, 1),
      )
    )
  # [batch, positions..., window, features] -> the operand's order of axes.
  rows = jnp.stack(found, axis=-2)
  rows = rows.reshape(-1, *window, x.shape[-1])
  place = {axis: k + 1 for k, axis in enumerate(window_axes)}
  place[in_axis] = len(window) + 1
  order = [place[axis] for axis in sorted(place)]
  return rows.transpose(0, *order).reshape(len(rows), -1)


def _offsets(window: Sequence[int]) -> list[tuple[int, ...]]:
  offsets: list[tuple[int, ...]] = [()]
  for size in window:
    offsets = [(*before, k) for before in offsets for k in range(size)]
  return offsets
