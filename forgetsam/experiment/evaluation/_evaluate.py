"""Mean scores over a split, every example counted once."""

import collections
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from forgetsam._typing import NDArray
from forgetsam.training import EvalStep, calibration_error

_IN_FLIGHT = 2  # dispatched batches: one runs, one waits, on the device

Finish = Callable[[dict[str, float]], dict[str, float]]
_Sums = dict[str, np.ndarray | np.float64]


def evaluate(
  eval_step: Callable[..., dict[str, Array]],
  params: Any,
  model_state: Any,
  batches: Iterable[Mapping[str, NDArray]],
) -> dict[str, float]:
  r"""Evaluates a model on all batches of a split.

  The expected calibration error compares, bin by bin, how often the model is
  right with how sure it is:

  .. math:: \mathrm{ECE} = \sum_b \frac{n_b}{n}
            \lvert \mathrm{acc}_b - \mathrm{conf}_b \rvert

  Sums are float32 within a batch and float64 across batches: batch size and
  number of devices change the result by float32 rounding, where no confidence
  lies so close to the edge of a bin that rounding moves it across.

  Args:
    eval_step: as `make_eval_step` builds it: sums over unmasked examples. Where
      it has a function `finish`, that makes the scores of the means.
    params: the model's parameters.
    model_state: the model's other collections.
    batches: padded and masked batches. They are taken one by one, and at most
      two are on their way through the device at a time.

  Returns:
    "loss", the mean softmax cross-entropy in nats; "accuracy",
    "top5_accuracy" and "ece" in [0, 1]; "count", the number of examples, an
    int. With groups in the batches, "group_accuracy/NAME" of each that has
    examples, and "worst_group_accuracy". Of a step with metrics of its own, the
    mean of each, and "count", the sum of the weights.

  Raises:
    ValueError: there is no example.

  Example:
    >>> import forgetsam as fs
    >>> import jax.numpy as jnp
    >>> def forward(params, model_state, images, *, train, key):
    ...   return images, model_state
    >>> batch = {"image": jnp.zeros((2, 4)), "label": jnp.array([0, 3])}
    >>> result = evaluate(fs.make_eval_step(forward), {}, {}, [batch])
    >>> result["accuracy"], result["ece"], result["count"]
    (0.5, 0.25, 2)

  References:
    Naeini et al., *Obtaining Well Calibrated Probabilities Using Bayesian
    Binning*, 2015.
    Guo et al., *On Calibration of Modern Neural Networks*, 2017, eq. (3).
  """
  return evaluate_each({"": eval_step}, params, model_state, batches)[""]


def evaluate_each(
  eval_steps: Mapping[str, Callable[..., dict[str, Array]]],
  params: Any,
  model_state: Any,
  batches: Iterable[Mapping[str, NDArray]],
) -> dict[str, dict[str, float]]:
  """Scores a split in several ways, reading it once.

  Args:
    eval_steps: steps as `evaluate` takes them, such as over some classes and
      over all, by name.
    params: the model's parameters.
    model_state: the model's other collections.
    batches: as in `evaluate`.

  Returns:
    Each step's scores by its name, as `evaluate` returns them.

  Raises:
    ValueError: there is no example.
  """
  totals: dict[str, _Sums] = {name: {} for name in eval_steps}
  waiting: collections.deque[dict[str, dict[str, Array]]] = collections.deque()

  def settle() -> None:
    for name, sums in waiting.popleft().items():
      totals[name] = _add(totals[name], sums)

  for batch in batches:
    if len(waiting) == _IN_FLIGHT:
      settle()
    steps = eval_steps.items()
    waiting.append({k: step(params, model_state, batch) for k, step in steps})
  while waiting:
    settle()
  return {
    name: _finish(eval_steps[name])(_means(total))
    for name, total in totals.items()
  }


def rank(scores: Mapping[str, float]) -> tuple[float, ...]:
  """Orders scores by how good they are, the larger the better.

  By accuracy, then by the loss; by the loss alone where there is no accuracy.

  Example:
    >>> sure = {"loss": 0.1, "accuracy": 0.8}
    >>> rank({"loss": 0.2, "accuracy": 0.9}) > rank(sure)
    True
    >>> rank({"loss": 0.2}) < rank({"loss": 0.1})
    True
  """
  by_accuracy = [scores["accuracy"]] if "accuracy" in scores else []
  return (*by_accuracy, -scores["loss"])


def beside_ema(
  eval_steps: Mapping[str, Callable[..., dict[str, Array]]], ema: Any
) -> dict[str, Callable[..., dict[str, Array]]]:
  """Adds to each step one that scores the weights' average, as `NAME/ema`.

  Args:
    eval_steps: steps as `evaluate_each` takes them.
    ema: the average, placed as the parameters are; None adds nothing.

  Returns:
    The steps by name; all read the same running statistics.
  """
  steps = dict(eval_steps)
  if ema is not None:
    for name, step in eval_steps.items():
      steps[f"{name}/ema"] = _with_params(step, ema)
  return steps


def _with_params(
  step: Callable[..., dict[str, Array]], params: Any
) -> "FinishedStep":
  return FinishedStep(
    lambda _, model_state, batch: step(params, model_state, batch),
    _finish(step),
  )


class FinishedStep:
  """An evaluation step whose scores are a function of its means.

  Args:
    step: as `make_eval_step` builds it.
    finish: from all means by name to what is reported, such as a perplexity.
  """

  def __init__(self, step: EvalStep, finish: Finish):
    self._step, self.finish = step, finish

  def __call__(self, *arguments: Any) -> dict[str, Array]:
    return self._step(*arguments)


def _finish(step: Callable[..., Any]) -> Finish:
  return getattr(step, "finish", lambda means: means)


def _means(total: _Sums) -> dict[str, float]:
  count = float(total.get("count", np.zeros(())))
  if count == 0:
    raise ValueError("batches must hold at least one unmasked example")
  if "bin_count" not in total:
    means = {name: float(value) / count for name, value in total.items()}
    return means | {"count": int(count) if count == int(count) else count}
  ece = calibration_error(total["bin_confidence"], total["bin_correct"], count)
  return {
    "loss": float(total["loss"]) / count,
    "accuracy": float(total["correct"]) / count,
    "top5_accuracy": float(total["correct_top5"]) / count,
    "ece": float(ece),
    "count": int(count),
    **_group_accuracies(total),
  }


def _group_accuracies(total: _Sums) -> dict[str, float]:
  """The accuracy of each group that has examples, and the lowest of them."""
  found: dict[str, float] = {}
  for key, count in total.items():
    start, _, end = key.rpartition("/")
    if start.startswith("group/") and end == "count" and count:
      name = start.removeprefix("group/")
      found[f"group_accuracy/{name}"] = float(total[f"{start}/correct"] / count)
  return found | (
    {"worst_group_accuracy": min(found.values())} if found else {}
  )


def _add(total: _Sums, sums: dict[str, Any]) -> _Sums:
  """Adds one batch's sums in float64; it waits for the batch."""
  return {
    name: total.get(name, 0.0) + np.asarray(value, np.float64)
    for name, value in jax.device_get(sums).items()
  }
