"""Training where the bias is known: what is measured, and the comparison."""

from forgetsam.studies.known_bias._influence import (
  Influence,
  Probe,
  accuracy,
  influence,
  make_probe,
)
from forgetsam.studies.known_bias._one_step import (
  LogChange,
  StepEffect,
  step_effect,
)
from forgetsam.studies.known_bias._scoring import SPLITS, Scorer
from forgetsam.studies.known_bias._study import (
  MICRO_BATCHES,
  RADII,
  WEIGHT_DECAYS,
  Condition,
  choose_rho,
  curve_conditions,
  plain_conditions,
)

__all__ = [
  "MICRO_BATCHES",
  "RADII",
  "SPLITS",
  "WEIGHT_DECAYS",
  "Condition",
  "Influence",
  "LogChange",
  "Probe",
  "Scorer",
  "StepEffect",
  "accuracy",
  "choose_rho",
  "curve_conditions",
  "influence",
  "make_probe",
  "plain_conditions",
  "step_effect",
]
