"""How one PyTorch array corresponds to one or three of ours."""

from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Shaped

Array = Shaped[np.ndarray, "..."]
Shape = tuple[int, ...]


class Layout(NamedTuple):
  """A pair of rearrangements, each the inverse of the other.

  Attributes:
    to_torch: from our arrays to PyTorch's.
    to_ours: from PyTorch's array and our shapes to our arrays.
  """

  to_torch: "_ToTorch"
  to_ours: "_ToOurs"


class _ToTorch(Protocol):
  def __call__(self, *ours: Array) -> Array: ...


class _ToOurs(Protocol):
  def __call__(self, array: Array, *shapes: Shape) -> tuple[Array, ...]: ...


def _same(*ours: Array) -> Array:
  (array,) = ours
  return array.reshape(array.shape)


def _same_back(array: Array, *shapes: Shape) -> tuple[Array, ...]:
  (shape,) = shapes
  return (array.reshape(shape),)


def _conv(*ours: Array) -> Array:
  (kernel,) = ours
  return kernel.transpose(3, 2, 0, 1)


def _conv_back(array: Array, *shapes: Shape) -> tuple[Array, ...]:
  return (array.transpose(2, 3, 1, 0),)


def _dense(*ours: Array) -> Array:
  """The last axis holds the outputs; the others, flattened, the inputs."""
  (kernel,) = ours
  return kernel.reshape(-1, kernel.shape[-1]).T


def _dense_back(array: Array, *shapes: Shape) -> tuple[Array, ...]:
  (shape,) = shapes
  return (array.T.reshape(shape),)


def _fused_kernel(*ours: Array) -> Array:
  """The first axis holds the inputs; the others, flattened, the outputs."""
  return np.concatenate([x.reshape(x.shape[0], -1).T for x in ours])


def _fused_kernel_back(array: Array, *shapes: Shape) -> tuple[Array, ...]:
  parts = np.split(array, len(shapes))
  return tuple(
    part.T.reshape(shape) for part, shape in zip(parts, shapes, strict=True)
  )


def _fused_bias(*ours: Array) -> Array:
  return np.concatenate([x.reshape(-1) for x in ours])


def _fused_bias_back(array: Array, *shapes: Shape) -> tuple[Array, ...]:
  parts = np.split(array, len(shapes))
  return tuple(
    part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)
  )


SAME = Layout(_same, _same_back)  # vectors, position embeddings
CONV = Layout(_conv, _conv_back)  # [h, w, in, out] as [out, in, h, w]
DENSE = Layout(_dense, _dense_back)  # [..., out] as [out, in]
# Queries, keys and values [in, heads, size] as one [3 heads size, in].
FUSED_KERNEL = Layout(_fused_kernel, _fused_kernel_back)
FUSED_BIAS = Layout(_fused_bias, _fused_bias_back)
