"""The lab: from a configuration to a trained, measured and kept run."""

from forgetsam._lab import lab_packages

with lab_packages("forgetsam.experiment"):
  from forgetsam.experiment.config import VARIANTS, apply_variant, base_config

__all__ = ["VARIANTS", "apply_variant", "base_config"]
