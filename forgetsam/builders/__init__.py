"""The only reader of configurations: from a config to a run's pieces."""

from forgetsam.builders._experiment import Experiment, build_experiment
from forgetsam.builders._images import build_data
from forgetsam.builders._model import build_model
from forgetsam.builders._optimizer import (
  build_learning_rate,
  build_optimizer,
  decays,
)
from forgetsam.builders._perturbation import (
  build_ascent,
  build_loss,
  build_perturb,
  build_rho,
)

__all__ = [
  "Experiment",
  "build_ascent",
  "build_data",
  "build_experiment",
  "build_learning_rate",
  "build_loss",
  "build_model",
  "build_optimizer",
  "build_perturb",
  "build_rho",
  "decays",
]
