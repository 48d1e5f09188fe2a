"""Published methods, composed of the pieces in `perturbations`."""

from forgetsam.methods._decoupled_wsam import decoupled_wsam
from forgetsam.methods._eigen_sam import EigenSAMState, eigen_sam
from forgetsam.methods._esam import esam
from forgetsam.methods._fisher_sam import fisher_sam
from forgetsam.methods._friendly_sam import friendly_sam
from forgetsam.methods._gam import GAMState, gam
from forgetsam.methods._gnp import gnp
from forgetsam.methods._layer_sam import layer_sam, look_layer_sam
from forgetsam.methods._look_sam import LookSAMState, look_sam
from forgetsam.methods._lookbehind import lookbehind, slow_weights
from forgetsam.methods._momentum_ascent import momentum_ascent
from forgetsam.methods._polyak_step import PolyakStepState, polyak_step
from forgetsam.methods._stable_sam import stable_sam
from forgetsam.methods._vasso import vasso
from forgetsam.methods._xsam import XSAMState, xsam

__all__ = [
  "EigenSAMState",
  "GAMState",
  "LookSAMState",
  "PolyakStepState",
  "XSAMState",
  "decoupled_wsam",
  "eigen_sam",
  "esam",
  "fisher_sam",
  "friendly_sam",
  "gam",
  "gnp",
  "layer_sam",
  "look_layer_sam",
  "look_sam",
  "lookbehind",
  "momentum_ascent",
  "polyak_step",
  "slow_weights",
  "stable_sam",
  "vasso",
  "xsam",
]
