"""From a configuration to the functions and numbers of a run."""

from forgetsam.experiment.build._batches import (
  Batches,
  beside_previous,
  build_eval_batches,
)
from forgetsam.experiment.build._data import (
  build_data,
  build_sources,
  is_streamed,
)
from forgetsam.experiment.build._evaluation_sets import (
  CORRUPTED,
  EvaluationSet,
  adapt_to_sets,
  build_evaluation_sets,
)
from forgetsam.experiment.build._experiment import build_experiment
from forgetsam.experiment.build._initial_weights import build_start, load_run
from forgetsam.experiment.build._mesh import (
  build_mesh,
  build_sharding,
  place_variables,
)
from forgetsam.experiment.build._model import (
  build_metrics,
  build_model,
  input_spec,
)
from forgetsam.experiment.build._offsets import Offset, build_offsets, draw_key
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
from forgetsam.experiment.build._probe import draw_probe
from forgetsam.experiment.build._step_check import log_m_sharpness
from forgetsam.experiment.build._task import check_classes, has_classes
from forgetsam.experiment.run import Experiment, Intervals

__all__ = [
  "CORRUPTED",
  "Batches",
  "EvaluationSet",
  "Experiment",
  "Intervals",
  "Offset",
  "adapt_to_sets",
  "beside_previous",
  "build_ascent",
  "build_data",
  "build_eval_batches",
  "build_evaluation_sets",
  "build_experiment",
  "build_learning_rate",
  "build_loss",
  "build_mesh",
  "build_metrics",
  "build_model",
  "build_offsets",
  "build_optimizer",
  "build_perturb",
  "build_rho",
  "build_sharding",
  "build_sources",
  "build_start",
  "check_classes",
  "decays",
  "draw_key",
  "draw_probe",
  "has_classes",
  "input_spec",
  "is_streamed",
  "load_run",
  "log_m_sharpness",
  "place_variables",
]
