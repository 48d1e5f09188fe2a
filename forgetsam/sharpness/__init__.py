"""How sharp the loss is around the weights: curvature, balls and pictures.

Everything is a function of a `DatasetLoss`, the mean loss over a dataset as a
function of the weights; `restrict` makes it one of a group of layers.
"""

from forgetsam._estimate import Estimate
from forgetsam.sharpness._balls import (
  WorstCase,
  average_sharpness,
  m_sharpness,
  worst_case_sharpness,
)
from forgetsam.sharpness._dataset_loss import (
  DatasetLoss,
  dataset_loss,
  gradient_norm,
)
from forgetsam.sharpness._layer_groups import layer_groups, restrict
from forgetsam.sharpness._plots import plot_loss_surface, plot_spectral_density
from forgetsam.sharpness._spectrum import (
  Eigenvalues,
  SpectralDensity,
  extreme_eigenvalues,
  spectral_density,
)
from forgetsam.sharpness._surface import loss_surface, orthonormal
from forgetsam.sharpness._trace import hutchinson_trace, xtrace

__all__ = [
  "DatasetLoss",
  "Eigenvalues",
  "Estimate",
  "SpectralDensity",
  "WorstCase",
  "average_sharpness",
  "dataset_loss",
  "extreme_eigenvalues",
  "gradient_norm",
  "hutchinson_trace",
  "layer_groups",
  "loss_surface",
  "m_sharpness",
  "orthonormal",
  "plot_loss_surface",
  "plot_spectral_density",
  "restrict",
  "spectral_density",
  "worst_case_sharpness",
  "xtrace",
]
