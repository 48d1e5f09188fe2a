"""Mean loss and accuracy over a split, every example counted once."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
from jaxtyping import Array


def evaluate(
  eval_step: Callable[..., dict[str, Array]],
  params: Any,
  model_state: Any,
  batches: Iterable[dict[str, Array]],
) -> dict[str, float]:
  """Evaluates a model on all batches of a split.

  Args:
    eval_step: as `make_eval_step` builds it: sums over unmasked examples.
    params: the model's parameters.
    model_state: the model's other collections.
    batches: padded and masked batches.

  Returns:
    "loss", the mean softmax cross-entropy in nats, and "accuracy" in [0, 1].

  Raises:
    ValueError: there is no example.
  """
  # All batches are dispatched before the first sum is fetched.
  sums = [eval_step(params, model_state, batch) for batch in batches]
  total = {"loss": 0.0, "correct": 0.0, "count": 0.0}
  for part in jax.device_get(sums):
    for name in total:
      total[name] += float(part[name])
  if total["count"] == 0:
    raise ValueError("batches must hold at least one unmasked example")
  return {
    "loss": total["loss"] / total["count"],
    "accuracy": total["correct"] / total["count"],
  }
