"""m-sharpness without a gradient or an offset of each micro-batch."""

from forgetsam.training.factored._choice import MODES, MSharpness, decide
from forgetsam.training.factored._passes import Parts

__all__ = ["MODES", "MSharpness", "Parts", "decide"]
