"""Metrics of a task: those of one's own, or the accuracy of classes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from forgetsam._arrays import is_float
from forgetsam._labels import check_labels
from forgetsam._objectives import is_of_classes, mean_value, takes_where
from forgetsam._typing import AscentSignal, Labels, Loss, PyTree

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
