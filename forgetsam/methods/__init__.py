"""Published methods, composed of the pieces in `perturbations`."""

from forgetsam.methods._eigen_sam import EigenSAMState, eigen_sam
from forgetsam.methods._friendly_sam import FriendlyState, friendly_sam
from forgetsam.methods._gam import GAMState, gam
from forgetsam.methods._layer_sam import layer_sam, look_layer_sam
from forgetsam.methods._look_sam import LookSAMState, look_sam
from forgetsam.methods._lookbehind import lookbehind, slow_weights
from forgetsam.methods._momentum_ascent import momentum_ascent
from forgetsam.methods._polyak_step import PolyakStepState, polyak_step
from forgetsam.methods._stable_sam import stable_sam
from forgetsam.methods._xsam import XSAMState, xsam

__all__ = [
  "EigenSAMState",
  "FriendlyState",
  "GAMState",
  "LookSAMState",
  "PolyakStepState",
  "XSAMState",
  "eigen_sam",
  "friendly_sam",
  "gam",
  "layer_sam",
  "look_layer_sam",
  "look_sam",
  "lookbehind",
  "momentum_ascent",
  "polyak_step",
  "slow_weights",
  "stable_sam",
  "xsam",
]
