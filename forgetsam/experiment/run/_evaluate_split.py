"""Evaluation of a run's model on one of its splits."""

from typing import Any

from forgetsam.experiment.build import Experiment
from forgetsam.experiment.evaluation import evaluate


def evaluate_split(
  experiment: Experiment, variables: Any, name: str
) -> dict[str, float]:
  """Loss and accuracy on a split of what has `params` and `model_state`."""
  return evaluate(
    experiment.eval_step,
    variables.params,
    variables.model_state,
    experiment.eval_batches(getattr(experiment.sources, name)),
  )
