"""How much information a perturbation of the weights removes.

The estimators are ours, derived in their docstrings: the paper's are not known
to us. Each comes with its standard error, its bias, and the controls without
which it misleads.
"""

from forgetsam._arrays import add_delta as add_offset
from forgetsam._estimate import Estimate
from forgetsam.forgetting._effect import effect_over_repeats
from forgetsam.forgetting._model_specific import (
  ModelSpecificForgetting,
  NetworkForgetting,
  OriginEffect,
  SpecificForgetting,
  model_specific_forgetting,
)
from forgetsam.forgetting._offsets import (
  DeltaFn,
  LogitsFn,
  batched,
  offset_fn,
  probe_indices,
)
from forgetsam.forgetting._output_forgetting import (
  OutputForgetting,
  ProbeForgetting,
  output_forgetting,
  probe_forgetting,
)
from forgetsam.forgetting._output_information import (
  InformationEstimates,
  OutputInformation,
  output_information,
)
from forgetsam.forgetting._output_shift import (
  OutputShift,
  OutputSummary,
  output_shift,
)
from forgetsam.forgetting._representation import (
  RepresentationInformation,
  feature_scale,
  representation_information,
)
from forgetsam.forgetting._representation_forgetting import (
  RepresentationForgetting,
  representation_forgetting,
)

__all__ = [
  "DeltaFn",
  "Estimate",
  "InformationEstimates",
  "LogitsFn",
  "ModelSpecificForgetting",
  "NetworkForgetting",
  "OriginEffect",
  "OutputForgetting",
  "OutputInformation",
  "OutputShift",
  "OutputSummary",
  "ProbeForgetting",
  "RepresentationForgetting",
  "RepresentationInformation",
  "SpecificForgetting",
  "add_offset",
  "batched",
  "effect_over_repeats",
  "feature_scale",
  "model_specific_forgetting",
  "offset_fn",
  "output_forgetting",
  "output_information",
  "output_shift",
  "probe_forgetting",
  "probe_indices",
  "representation_forgetting",
  "representation_information",
]
