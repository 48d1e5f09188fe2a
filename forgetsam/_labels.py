"""Labels and weights beside logits: which of them fit, and what they mean."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from forgetsam._arrays import at_least_float32
from forgetsam._typing import PyTree

Weights = Float[Array, "*batch"]


class Labelled(NamedTuple):
  """Logits and what belongs to each position, ready for arithmetic.

  Attributes:
    logits: in at least float32; nan where `no_class` is.
    targets: each label's distribution over the classes.
    no_class: nan where an index that counts is no class, else 0; `None` for
      distributions.
    weights: as `as_weights` gives them; `None` where all count alike.
  """

  logits: Float[Array, "*batch classes"]
  targets: Float[Array, "*batch classes"]
  no_class: Float[Array, "*batch"] | None
  weights: Weights | None

  def mean(self, values: Float[Array, "*batch"]) -> Float[Array, ""]:
    """The mean over positions; the weighted one is 0 where all weights are."""
    if self.no_class is not None:
      # Again: XLA may take 0 * nan for 0 where the 0 is a one-hot target's.
      values = values + self.no_class
    return mean(values, self.weights)

  def share(
    self, directions: Float[Array, "*batch classes"]
  ) -> Float[Array, "*batch classes"]:
    """Each position's part in the mean, as a cotangent has it."""
    if self.weights is None:
      return directions / math.prod(directions.shape[:-1])
    return directions * _shares(self.weights)[..., None]


def labelled(logits: Any, labels: Any, where: Any = None) -> Labelled:
  """Checks shapes and dtypes; logits and target are 0 where the weight is."""
  z, targets = with_targets(logits, labels)
  weights = no_class = None
  if where is not None:
    weights = as_weights(where, z.shape[:-1]).astype(z.dtype)
  if np.ndim(labels) < z.ndim:
    indices = _indices(labels)
    known = (indices >= 0) & (indices < z.shape[-1])
    if weights is not None:
      known |= weights == 0
    no_class = jnp.where(known, 0.0, jnp.nan).astype(z.dtype)
    # Added, not selected, for the gradient to be nan; 0 changes no bit.
    z = z + no_class[..., None]
  if weights is None:
    return Labelled(z, targets, no_class, None)
  counts = (weights != 0)[..., None]
  # Before the loss: the gradient of 0 * nan would be nan.
  return Labelled(
    jnp.where(counts, z, 0), jnp.where(counts, targets, 0), no_class, weights
  )


def with_targets(
  logits: Any, labels: Any
) -> tuple[Float[Array, "*batch classes"], Float[Array, "*batch classes"]]:
  """Logits in at least float32 and targets, zero where an index is no class."""
  logits, labels = check_labels(logits, labels)
  z = at_least_float32(logits)
  if labels.ndim == z.ndim:
    return z, labels.astype(z.dtype)
  return z, jax.nn.one_hot(_indices(labels), z.shape[-1], dtype=z.dtype)


def check_labels(logits: Any, labels: Any) -> tuple[Array, Array]:
  """Refuses logits that are not `[..., K]`, and labels that do not fit them.

  Labels are class indices of the logits' leading shape, or distributions of
  the logits' own.
  """
  logits, labels = as_array("logits", logits), as_array("labels", labels)
  check_floats("logits", logits)
  lead, num_classes = logits.shape[:-1], logits.shape[-1:]
  if not lead:
    raise ValueError(
      f"logits of shape {logits.shape} must be [batch, ..., classes]: of one "
      "example, say logits[None]; of one output, give the model one per class"
    )
  if num_classes[0] < 2:
    raise ValueError(
      f"logits of shape {logits.shape} have {num_classes[0]} class: a softmax "
      "needs at least two, and so does forgetting; give a binary classifier "
      "two outputs"
    )
  if math.prod(lead) == 0:
    raise ValueError(f"logits of shape {logits.shape} hold no example")
  if labels.shape not in (lead, logits.shape):
    remedy = f"give class indices {lead} or distributions {logits.shape}"
    if labels.shape == (*lead, 1):
      remedy = f"say labels[{':, ' * len(lead)}0]"
    raise ValueError(
      f"labels of shape {labels.shape} do not fit logits of shape "
      f"{logits.shape}: {remedy}"
    )
  integers = jnp.issubdtype(labels.dtype, jnp.integer)
  soft = labels.shape == logits.shape
  if not integers and not (soft and jnp.issubdtype(labels.dtype, jnp.floating)):
    kind, dtype = ("distributions", "float32") if soft else ("indices", "int32")
    raise ValueError(
      f"labels of shape {labels.shape} are {labels.dtype}: class {kind} must "
      f"not be; give labels.astype({dtype!r}), if that is what they are"
    )
  check_width("labels", labels)
  return jnp.asarray(logits), jnp.asarray(labels)


def check_width(name: str, labels: Any) -> None:
  """Refuses NumPy's indices that JAX would cut to 32 bits, to other classes."""
  if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu":
    return
  beyond = labels[labels != labels.astype(np.int32)]
  if beyond.size:
    raise ValueError(
      f"{name} hold {beyond.flat[0]}: a class index must fit 32 bits; give "
      "indices of 0 to K - 1"
    )


def check_floats(name: str, tree: PyTree) -> None:
  for x in jax.tree.leaves(tree):
    if not jnp.issubdtype(jnp.result_type(x), jnp.floating):
      raise ValueError(
        f"{name} are {jnp.result_type(x)}: they must be floating-point numbers"
      )


def as_weights(
  where: Any, shape: tuple[int, ...], name: str = "where"
) -> Weights:
  """Weights of positions, from ones of positions or of examples `[B]`.

  A negative one becomes nan, which shows in whatever it weighs.
  """
  where = as_array(name, where)
  if where.shape not in (shape, shape[:1]):
    remedy = f"must weigh examples {shape[:1]} or positions {shape}"
    if where.shape == (*shape, 1):
      remedy += f": say {name}[{':, ' * len(shape)}0]"
    raise ValueError(f"{name} of shape {where.shape} {remedy}")
  real = (jnp.bool_, jnp.integer, jnp.floating)
  if not any(jnp.issubdtype(where.dtype, kind) for kind in real):
    raise ValueError(f"{name} is {where.dtype}: weights must be real numbers")
  weights = at_least_float32(jnp.asarray(where))
  weights = jnp.where(weights < 0, jnp.nan, weights)
  missing = (1,) * (len(shape) - weights.ndim)
  return jnp.broadcast_to(weights.reshape(weights.shape + missing), shape)


def mean(values: Float[Array, "*batch"], weights: Weights | None) -> Array:
  if weights is None:
    return values.mean()
  return jnp.sum(jnp.where(weights == 0, 0, values * _shares(weights)))


def _indices(labels: Any) -> Array:
  """Labels of a type that can count the classes, as int8 cannot 128."""
  labels = jnp.asarray(labels)
  return labels.astype(jnp.int32) if labels.dtype.itemsize < 4 else labels


def as_array(name: str, x: Any) -> Any:
  """One array of numbers, as it is or from NumPy."""
  if isinstance(x, jax.Array):
    return x
  try:
    array = np.asarray(x)
  except (ValueError, jax.errors.TracerArrayConversionError):
    array = np.asarray(None)
  if array.dtype.kind == "O" and not isinstance(x, np.ndarray):
    raise ValueError(
      f"{name}: it must be one array of numbers, not a {type(x).__name__}; "
      "where a model has several outputs or labels, write a loss (and a "
      "signal) that takes them"
    )
  if array.dtype.kind in "OSUMm":
    raise ValueError(f"{name} are {array.dtype}: they must be numbers")
  return array


def _shares(weights: Weights) -> Weights:
  total = jnp.sum(weights)
  # An infinite total would give every position the share 0.
  total = jnp.where(jnp.isinf(total), jnp.nan, total)
  return weights / jnp.where(total == 0, 1, total)
