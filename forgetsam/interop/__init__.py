"""Weights in and out: PyTorch files, and models of another size."""

from forgetsam.interop._adapt import Adapted, adapt
from forgetsam.interop._convert import from_torch, to_torch
from forgetsam.interop._read import weights_in

__all__ = ["Adapted", "adapt", "from_torch", "to_torch", "weights_in"]
