"""Published methods, composed of the pieces in `perturbations`."""

from forgetsam.methods._friendly_sam import FriendlyState, friendly_sam
from forgetsam.methods._look_sam import LookSAMState, look_sam
from forgetsam.methods._momentum_ascent import momentum_ascent

__all__ = [
  "FriendlyState",
  "LookSAMState",
  "friendly_sam",
  "look_sam",
  "momentum_ascent",
]
