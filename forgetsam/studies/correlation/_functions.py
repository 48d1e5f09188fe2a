"""The functions of one model that all measures share."""

import functools

from ml_collections import config_dict

import forgetsam as fs
from forgetsam import models
from forgetsam.experiment.build import build_model
from forgetsam.forgetting import DeltaFn
from forgetsam.studies.correlation._offsets import (
  probed_logits,
  probed_offset_fn,
)


class Functions:
  """The compiled functions of one model, for all of the study's networks.

  Args:
    config: any network's; the model must have no state.
    num_classes: number of logits.
  """

  def __init__(self, config: config_dict.ConfigDict, num_classes: int):
    self.forward = models.forward(build_model(config, num_classes))
    self.loss = fs.softmax_cross_entropy()
    self.logits_fn = probed_logits(self.forward)
    self._activation = config.ascent.activation

  @functools.cache  # noqa: B019  # as long as the study
  def delta_fn(self, ascent: str, perturbation: str) -> DeltaFn:
    """The perturbation of `Probed` networks, the same object every time."""
    return probed_offset_fn(
      self.forward,
      self.loss,
      ascent=ascent,
      perturbation=perturbation,
      activation=self._activation,
    )
