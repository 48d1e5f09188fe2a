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

# (outputs, labels), and `where=` weights [B] or [...] where it takes masks.
# A loss gives its mean, or a number per example or position.
Loss = Callable[..., Float[Array, "*batch"]]
AscentSignal = Callable[..., PyTree]
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
    inputs: Any,
    /,
    *,
    train: bool,
    key: jax.Array | None,
  ) -> tuple[Any, PyTree]:
    """Returns the outputs, as logits `[..., classes]`, and the new state."""
