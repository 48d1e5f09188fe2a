"""Published methods, composed of the pieces in `perturbations`."""

from forgetsam.methods._bsam import BSAMState, bsam
from forgetsam.methods._cr_sam import cr_sam
from forgetsam.methods._decoupled_wsam import decoupled_wsam
from forgetsam.methods._dynamic_mask import dynamic_mask
from forgetsam.methods._eigen_sam import EigenSAMState, eigen_sam
from forgetsam.methods._esam import esam
from forgetsam.methods._fisher_mask import fisher_mask
from forgetsam.methods._fisher_sam import fisher_sam
from forgetsam.methods._friendly_sam import friendly_sam
from forgetsam.methods._gam import GAMState, gam
from forgetsam.methods._gc_sam import gc_sam
from forgetsam.methods._gnp import gnp
from forgetsam.methods._layer_sam import layer_sam, look_layer_sam
from forgetsam.methods._le_sam import le_sam
from forgetsam.methods._look_sam import LookSAMState, look_sam
from forgetsam.methods._lookbehind import lookbehind, slow_weights
from forgetsam.methods._momentum_ascent import momentum_ascent
from forgetsam.methods._polyak_step import PolyakStepState, polyak_step
from forgetsam.methods._sampa import SAMPaState, sampa
from forgetsam.methods._sparse_masks import SparseMaskState
from forgetsam.methods._sparse_sam import sparse_sam
from forgetsam.methods._stable_sam import stable_sam
from forgetsam.methods._unified_sam import unified_sam
from forgetsam.methods._vasso import vasso
from forgetsam.methods._xsam import XSAMState, xsam
from forgetsam.methods._zsharp import z_score_filter, zsharp

__all__ = [
  "BSAMState",
  "EigenSAMState",
  "GAMState",
  "LookSAMState",
  "PolyakStepState",
  "SAMPaState",
  "SparseMaskState",
  "XSAMState",
  "bsam",
  "cr_sam",
  "decoupled_wsam",
  "dynamic_mask",
  "eigen_sam",
  "esam",
  "fisher_mask",
  "fisher_sam",
  "friendly_sam",
  "gam",
  "gc_sam",
  "gnp",
  "layer_sam",
  "le_sam",
  "look_layer_sam",
  "look_sam",
  "lookbehind",
  "momentum_ascent",
  "polyak_step",
  "sampa",
  "slow_weights",
  "sparse_sam",
  "stable_sam",
  "unified_sam",
  "vasso",
  "xsam",
  "z_score_filter",
  "zsharp",
]
