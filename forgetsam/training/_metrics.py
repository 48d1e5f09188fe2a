"""Metrics of a task: those of one's own, or the accuracy of classes."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from forgetsam._arrays import is_float
from forgetsam._labels import check_labels, labelled
from forgetsam._objectives import is_of_classes, mean_value, takes_where
from forgetsam._typing import AscentSignal, Labels, Loss, NDArray, PyTree

# (outputs, labels, where) -> by name, a number or one per example or position
MetricsFn = Callable[..., dict[str, Any]]

# Of the train step: others cannot have these names.
OWN = (
  "loss",
  "grad_norm",
  "skipped",
  "perturbed_loss",
  "perturbation_norm",
  "ascent_grad_norm",
  "clean_grads",
)


def classification_metrics(
  logits: Any, labels: Labels, where: Any = None
) -> dict[str, Bool[Array, "*batch"]]:
  """Whether the largest logit is the label's, at each position: "accuracy".

  The default of `make_train_step` where the loss or the signal is one of
  classes, as this package's are.

  Args:
    logits: the model's outputs `[..., K]`.
    labels: class indices `[...]`, or distributions `[..., K]` and their argmax.
    where: unused, for the mean by weight is the step's.

  Example:
    >>> classification_metrics(jnp.eye(2), jnp.array([0, 0]))
    {'accuracy': Array([ True, False], dtype=bool)}
  """
  logits, labels = check_labels(logits, labels)
  soft = labels.ndim == logits.ndim
  classes = jnp.argmax(labels, axis=-1) if soft else labels
  found = jnp.argmax(logits, axis=-1)
  return {"accuracy": found == classes.astype(found.dtype)}


class TokenMetrics:
  r"""Metrics of a language model's logits `[..., V]` and tokens `[...]`.

  Of each token: "nats", its cross-entropy, and "token_accuracy". `finish` makes
  "perplexity" of the mean over a whole set, :math:`\exp(\mathrm{nats})`.

  Example:
    >>> metrics = TokenMetrics()
    >>> found = metrics(jnp.zeros((1, 2, 8)), jnp.array([[0, 3]]))
    >>> means = {name: float(x.mean()) for name, x in found.items()}
    >>> metrics.finish(means)
    {'token_accuracy': 0.5, 'perplexity': 8.0...}
  """

  def __call__(
    self, logits: Any, labels: Labels, where: Any = None
  ) -> dict[str, Array]:
    """Makes a number of each token; padding may have any label."""
    given = labelled(logits, labels, where)
    nats = optax.softmax_cross_entropy(given.logits, given.targets)
    if given.no_class is not None:
      nats = nats + given.no_class
    right = classification_metrics(logits, labels)["accuracy"]
    return {"nats": nats, "token_accuracy": right}

  def finish(self, means: dict[str, float]) -> dict[str, float]:
    """Replaces the mean of "nats" by the perplexity."""
    others = {name: value for name, value in means.items() if name != "nats"}
    return {**others, "perplexity": math.exp(min(means["nats"], 700.0))}


def regression_metrics(
  outputs: Float[NDArray, "..."],
  labels: Float[NDArray, "..."],
  where: Any = None,
) -> dict[str, Float[Array, " batch"]]:
  """Each example's mean squared and mean absolute error: "mse" and "mae".

  Args:
    outputs: the model's.
    labels: of the same shape.
    where: unused, for the mean by weight is the step's.

  Raises:
    ValueError: the shapes differ, which would be broadcast.

  Example:
    >>> outputs, labels = jnp.array([[1.0], [4.0]]), jnp.array([[2.0], [2.0]])
    >>> regression_metrics(outputs, labels)["mse"]
    Array([1., 4.], dtype=float32)
  """
  if jnp.shape(outputs) != jnp.shape(labels):
    raise ValueError(
      f"outputs of shape {jnp.shape(outputs)} and labels of shape "
      f"{jnp.shape(labels)} must have the same shape: labels of one number an "
      "example are labels[:, None]"
    )
  error = jnp.asarray(outputs) - labels
  axes = tuple(range(1, error.ndim))
  return {
    "mse": jnp.mean(error**2, axes),
    "mae": jnp.mean(jnp.abs(error), axes),
  }


def default_metrics(loss: Loss, ascent: AscentSignal | None) -> MetricsFn:
  """The accuracy of classes; no metric for a loss of another kind."""
  if is_of_classes(loss) or is_of_classes(ascent):
    return classification_metrics

  def none(outputs: PyTree, labels: PyTree, where: Any = None) -> dict:
    _refuse_broadcasting(outputs, labels)
    return {}

  return none


def mean_metrics(
  metrics: MetricsFn,
  outputs: PyTree,
  labels: PyTree,
  where: Any,
  taken: tuple[str, ...],
) -> dict[str, Array]:
  """Calls `metrics` and averages what it returns, in float32."""
  weighs = takes_where(metrics)
  weights = {"where": where} if weighs else {}
  values = metrics(outputs, labels, **weights)
  if not isinstance(values, dict):
    raise ValueError(
      f"metrics returns a {type(values).__name__}: it must be a dictionary, "
      "from names to numbers"
    )
  found = {}
  for name, value in values.items():
    if name in taken or not isinstance(name, str):
      raise ValueError(
        f"metrics returns {name!r}: give it another name, and none of the "
        f"step's own, {', '.join(taken)}"
      )
    mean = mean_value(f"metrics[{name!r}]", value, labels, where)
    if where is not None and not weighs and not jnp.ndim(value):
      raise ValueError(
        f"metrics takes no `where`, and {name!r} is a mean over examples: make "
        "it metrics(outputs, labels, where), or return a number per example"
      )
    found[name] = mean.astype(jnp.float32)
  return found


def _refuse_broadcasting(outputs: PyTree, labels: PyTree) -> None:
  """A loss would broadcast class indices [B, 1] against outputs [B, K]."""
  arrays = isinstance(outputs, jax.Array) and isinstance(labels, jax.Array)
  if not arrays or is_float(labels) or outputs.shape[-1:] < (2,):
    return
  if labels.shape == (*outputs.shape[:-1], 1):
    check_labels(outputs, labels)
