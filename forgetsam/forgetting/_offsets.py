"""Offsets of the weights from examples, and networks run over probes."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int

from forgetsam._arrays import conj
from forgetsam._checks import check_count
from forgetsam._typing import AscentSignal, NDArray, PyTree
from forgetsam.forgetting._jackknife import IntLabels, check_indices

LogitsFn = Callable[[PyTree, Any], Array]
Examples = tuple[NDArray, NDArray]


@runtime_checkable
class DeltaFn(Protocol):
  """From a network and the examples of a micro-batch to a weight offset."""

  def __call__(
    self,
    params: PyTree,
    images: Any,
    labels: Any,
    *,
    micro_batch: int | Array = 0,
  ) -> PyTree:
    """Returns an offset with params' structure and shapes."""


def offset_fn(
  logits_fn: LogitsFn,
  signal: AscentSignal,
  perturbation: optax.GradientTransformation,
  *,
  opt_state: Any = None,
) -> Callable[..., PyTree]:
  r"""A function from weights and examples to a perturbation's offset.

  .. math:: \delta = P\bigl(J^\top s(z(w), y)\bigr), \qquad
     J = \partial z / \partial w

  with z the logits, s the ascent signal and P the perturbation: what one
  micro-batch's perturbed gradient adds to the weights, in evaluation mode
  (the train step's micro-batches go through dropout and batch statistics).

  Args:
    logits_fn: `(params, images) -> logits [batch, classes]`, deterministic.
    signal: the ascent signal; `fs.loss_ascent(loss)` for SAM,
      `fs.output_bias_forgetting()` for OBF.
    perturbation: from ascent gradients to offsets, such as `fs.sam(rho)`. It
      gets the extra arguments `ascent_fn`, `micro_batch` and `opt_state`.
    opt_state: for perturbations that read the optimizer's state.

  Returns:
    `delta_fn(params, images, labels, *, micro_batch=0, state=None)`. `state` is
    the perturbation's state, with the count that its schedules read, such as a
    run's `train_state.perturb_state.perturbation`; `None` is a new one, at
    count 0. `micro_batch` tells random offsets apart. Make it once and keep it:
    the functions that take it compile anew for a new one.

  Example:
    >>> import forgetsam as fs
    >>> delta_fn = offset_fn(
    ...   lambda w, x: x @ w, fs.output_bias_forgetting(), fs.sam(rho=0.5)
    ... )
    >>> w = jnp.zeros((3, 2))
    >>> delta = delta_fn(w, jnp.ones((4, 3)), jnp.array([0, 1, 0, 0]))
    >>> delta.shape, round(float(jnp.linalg.norm(delta)), 4)
    ((3, 2), 0.5)

  References:
    Vani et al., *Forget Sharpness*, ICML 2024, for OBF.
  """
  inner = optax.with_extra_args_support(perturbation)

  def delta_fn(
    params: PyTree,
    images: Any,
    labels: Any,
    *,
    micro_batch: int | Array = 0,
    state: Any = None,
  ) -> PyTree:
    def ascent_fn(point: PyTree) -> PyTree:
      logits, pullback = jax.vjp(lambda p: logits_fn(p, images), point)
      return conj(pullback(signal(logits, labels))[0])

    delta, _ = inner.update(
      ascent_fn(params),
      inner.init(params) if state is None else state,
      params,
      ascent_fn=ascent_fn,
      micro_batch=micro_batch,
      opt_state=opt_state,
    )
    return delta

  return delta_fn


def batched(
  network: LogitsFn, params: PyTree, images: Any, batch_size: int | None = None
) -> Array:
  """Runs a network over a probe in batches; the result does not depend on them.

  Args:
    network: `(params, images) -> array [batch, ...]`, logits or features, in
      evaluation mode, where examples do not see each other.
    params: the network's weights.
    images: the probe's inputs; the leading axis counts examples.
    batch_size: examples at a time, the last batch smaller where it does not
      divide; `None` takes all at once. It bounds memory and nothing else.

  Returns:
    One row per example.

  Raises:
    ValueError: batch_size is below 1.

  Example:
    >>> images = jnp.arange(6.0).reshape(3, 2)
    >>> batched(lambda w, x: x @ w, jnp.ones((2, 1)), images, batch_size=2)
    Array([[1.], [5.], [9.]], dtype=float32)
  """
  if batch_size is None:
    return network(params, images)
  check_count("batch_size", batch_size, ", or None")
  starts = range(0, len(images), batch_size)
  return jnp.concatenate(
    [network(params, images[i : i + batch_size]) for i in starts]
  )


def probe_indices(
  labels: IntLabels, per_class: int, key: jax.Array
) -> Int[np.ndarray, " m"]:
  """Draws a fixed probe: the same number of examples of every class.

  The number should be 30 at the least for entropy forms: their bias is of the
  order of one over it.

  Args:
    labels: class indices of all the examples to draw from.
    per_class: examples per class.
    key: of the draw.

  Returns:
    Indices into the examples, class by class, none twice.

  Raises:
    ValueError: per_class is below 2, or a class has fewer examples.

  Example:
    >>> indices = probe_indices(np.array([0, 1, 0, 1, 1]), 2, jax.random.key(0))
    >>> np.array([0, 1, 0, 1, 1])[indices]
    array([0, 0, 1, 1])
  """
  if per_class < 2:
    raise ValueError(
      f"per_class={per_class} must be at least 2 (30 for entropy forms): a "
      "class of one example exposes nothing by construction"
    )
  check_indices(labels)
  known = np.asarray(labels)
  order = np.asarray(jax.random.permutation(key, len(known)))
  chosen = []
  for label in np.unique(known):
    members = order[known[order] == label]
    if len(members) < per_class:
      raise ValueError(
        f"class {label} has {len(members)} examples, fewer than "
        f"per_class={per_class}: take a larger set, or fewer per class"
      )
    chosen.append(members[:per_class])
  return np.concatenate(chosen)
