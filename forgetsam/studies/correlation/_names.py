"""Which columns are compared, and their names for readers."""

# In a column's name "probe" is a perturbation common to all networks; the
# committed table and records hold these names.
# The analysis looks at these and no others, so that its tests can be counted.
FORGETTING = tuple(
  f"{perturbation}_{given}_{examples}"
  for perturbation in ("obf_probe", "sam_probe", "own")
  for given in ("unconditional", "conditional")
  for examples in ("train", "held_out")
)
CONTROLS = ("random_probe_unconditional_train", "specific_kl")
SHARPNESS = (
  "lambda_max",
  "trace",
  "average",
  "average_adaptive",
  "worst_case",
  "m_sharpness",
  "m_sharpness_adaptive",
)
# What there was to forget, and what any network has.
TRIVIAL = (
  "information_unconditional_train",
  "information_conditional_train",
  "information_unconditional_held_out",
  "information_conditional_held_out",
  "train_loss",
  "own_length",
  "weight_norm",
)
MEASURES = FORGETTING + CONTROLS + SHARPNESS + TRIVIAL
TARGETS = ("test_accuracy", "test_loss", "accuracy_gap")
# These any predictor has to add to.
GIVEN = ("train_loss", "own_length")
# The same, and what there was to forget: forgetting is a difference from it.
GIVEN_ALL = (
  *GIVEN,
  "information_conditional_train",
  "information_conditional_held_out",
)
# Measured along training, too.
ALONG = (
  "obf_probe_unconditional_train",
  "obf_probe_conditional_train",
  "sam_probe_unconditional_train",
  "sam_probe_conditional_train",
)
# Shown for each method, where networks are few.
SHORT = (
  *ALONG,
  "own_unconditional_train",
  "lambda_max",
  "m_sharpness",
  "train_loss",
)

_INFORMATION = {"unconditional": "I(X;Ŷ)", "conditional": "I(X;Ŷ|Y)"}
_PERTURBATIONS = {
  "obf_probe": "OBF probe",
  "sam_probe": "SAM probe",
  "random_probe": "random probe",
  "own": "own perturbation",
  "information": "before any perturbation",
}
_SETS = {"train": "train", "held_out": "held out", "test": "test"}

LABELS = {
  f"{perturbation}_{given}_{examples}": f"{a}, {b}, {c}"
  for perturbation, a in _PERTURBATIONS.items()
  for given, b in _INFORMATION.items()
  for examples, c in _SETS.items()
} | {
  "specific_kl": "SAM probe, KL excess on its batch",
  "lambda_max": "largest Hessian eigenvalue",
  "trace": "Hessian trace",
  "average": "average-case sharpness",
  "average_adaptive": "average-case, adaptive",
  "worst_case": "worst-case sharpness",
  "m_sharpness": "m-sharpness, m = 32",
  "m_sharpness_adaptive": "m-sharpness, adaptive",
  "train_loss": "training loss",
  "own_length": "own radius ‖δ‖",
  "weight_norm": "weights' norm",
  "test_accuracy": "test accuracy",
  "test_loss": "test loss",
  "accuracy_gap": "train minus test accuracy",
}


def label(name: str) -> str:
  """A column's name for readers; an epoch after @ stays.

  Example:
    >>> label("lambda_max"), label("own_conditional_test@3")
    ('largest Hessian eigenvalue', 'own perturbation, I(X;Ŷ|Y), test, epoch 3')
  """
  name, at, epoch = name.partition("@")
  return LABELS.get(name, name) + (f", epoch {epoch}" if at else "")
