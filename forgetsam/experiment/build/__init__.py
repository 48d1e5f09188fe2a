"""The only reader of configurations: from a config to a run's pieces."""

from forgetsam.experiment.build._evaluation_sets import (
  EvaluationSet,
  build_evaluation_sets,
)
from forgetsam.experiment.build._experiment import (
  Experiment,
  build_experiment,
  build_mesh,
  build_sharding,
)
from forgetsam.experiment.build._images import (
  build_data,
  build_eval_batches,
  build_sources,
)
from forgetsam.experiment.build._model import build_model
from forgetsam.experiment.build._optimizer import (
  build_learning_rate,
  build_optimizer,
  decays,
)
from forgetsam.experiment.build._perturbation import (
  build_ascent,
  build_loss,
  build_perturb,
  build_rho,
)

__all__ = [
  "EvaluationSet",
  "Experiment",
  "build_ascent",
  "build_data",
  "build_eval_batches",
  "build_evaluation_sets",
  "build_experiment",
  "build_learning_rate",
  "build_loss",
  "build_mesh",
  "build_model",
  "build_optimizer",
  "build_perturb",
  "build_rho",
  "build_sharding",
  "build_sources",
  "decays",
]
