"""The types that several modules share."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Float, Integer

PyTree = Any
# A hyper-parameter: known when the program is built, or traced.
Scalar = float | np.number | Array
NDArray = Array | np.ndarray
Logits = Float[NDArray, "*batch classes"]
# Class indices, or one distribution over the classes per position.
Labels = Integer[NDArray, "*batch"] | Float[NDArray, "*batch classes"]

# (logits, labels), and `where=` weights [B] or [...] where it is to take masks
Loss = Callable[..., Float[Array, ""]]
AscentSignal = Callable[..., Float[Array, "*batch classes"]]
# params -> gradient, and params -> (loss, gradient)
GradFn = Callable[[PyTree], PyTree]
ValueAndGradFn = Callable[[PyTree], tuple[Array, PyTree]]


@runtime_checkable
class Forward(Protocol):
  """A model's pure forward pass, as the train and evaluation steps call it."""

  def __call__(
    self,
    params: PyTree,
    model_state: PyTree,
    images: Any,
    *,
    train: bool,
    key: jax.Array | None,
  ) -> tuple[Array, PyTree]:
    """Returns logits `[batch, ..., classes]` and the new model state."""
