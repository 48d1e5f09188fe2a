"""The task of a run: its scores, and what its labels must be."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import config_dict

import forgetsam as fs
from forgetsam import data, models
from forgetsam._objectives import ascent_direction
from forgetsam.experiment.build._model import build_metrics, input_spec
from forgetsam.experiment.build._perturbation import build_ascent, build_loss
from forgetsam.experiment.config import ConfigError, own_components, refusal
from forgetsam.experiment.evaluation import FinishedStep
from forgetsam.training import EvalStep


def build_eval_step(
  config: config_dict.ConfigDict,
  forward: Any,
  num_classes: int,
  mesh: Mesh | None,
  **options: Any,
) -> EvalStep:
  """Scores a batch: as a classification, or by the task's loss and metrics.

  Args:
    config: a checked configuration.
    forward: the model's.
    num_classes: of the data.
    mesh: the mesh to score on.
    **options: `classes` and `multi_label` of `make_eval_step`.
  """
  if config.metric.name == "classification":
    return fs.make_eval_step(forward, mesh=mesh, **options)
  metrics = build_metrics(config, num_classes)
  step = fs.make_eval_step(
    forward,
    loss=build_loss(config, num_classes),
    metrics=metrics,
    mesh=mesh,
    **options,
  )
  finish = getattr(metrics, "finish", None)
  return step if finish is None else FinishedStep(step, finish)


def check_task(
  config: config_dict.ConfigDict, model: nn.Module, sources: data.Sources
) -> None:
  """Refuses a metric, loss or signal that outputs and labels do not fit.

  Class indices, one an example, that a built-in model, loss and metric of
  classification read are known to fit.
  """
  known = has_classes(sources) and not own_components(config)
  if known and config.metric.name == "classification":
    return
  classes, forward = sources.num_classes, models.forward(model)
  loss = build_loss(config, classes)
  steps: dict[str, Any] = {
    "loss": fs.make_eval_step(forward, loss=loss),
    "metric": build_eval_step(config, forward, classes, None),
  }
  if config.perturbation.name != "none":
    signal = build_ascent(config, classes)

    def ascend(params: Any, state: Any, batch: dict[str, Any]) -> Any:
      outputs, _ = forward(params, state, batch["image"], train=False)
      return ascent_direction(signal, "ascent", outputs, batch["label"])

    steps["ascent"] = ascend
  labels = jax.ShapeDtypeStruct((2, *sources.label_shape), sources.label_dtype)
  spec = input_spec(sources)
  for kind, step in steps.items():

    def score(key: Any, labels: Any, step: Any = step) -> Any:
      inputs = jnp.zeros((2, *spec.shape), spec.dtype)
      variables = models.initialise(model, key, spec)
      return step(*variables, {"image": inputs, "label": labels})

    try:
      jax.eval_shape(score, jax.random.key(0), labels)
    except Exception as error:  # of functions that may not be ours
      allowed = (
        f"what fits the model's outputs and the labels of {sources.name}, "
        f"{labels.dtype} {list(labels.shape[1:])} an example: {error}"
      )
      raise ConfigError(
        refusal(f"config.{kind}.name", config[kind].name, allowed)
      ) from error


def has_classes(sources: data.Sources) -> bool:
  """Whether the labels are one class an example."""
  integers = np.issubdtype(sources.label_dtype, np.integer)
  return bool(integers) and sources.label_shape == ()


def check_classes(key: str, value: Any, sources: data.Sources) -> None:
  """Refuses what needs logits `[B, K]` and one class an example."""
  if not has_classes(sources):
    allowed = (
      "a run with logits [B, K] and one class an example: the labels of "
      f"{sources.name} are {sources.label_dtype} {list(sources.label_shape)}"
    )
    raise ConfigError(refusal(key, value, allowed))
