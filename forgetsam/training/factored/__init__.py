"""m-sharpness without a gradient or an offset of each micro-batch."""

from forgetsam.training.factored._choice import (
  MODES,
  Decision,
  MSharpness,
  decide,
)

__all__ = ["MODES", "Decision", "MSharpness", "decide"]
