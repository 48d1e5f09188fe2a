"""The training step: one perturbation per micro-batch, on any mesh."""

from forgetsam.training._eval_step import make_eval_step
from forgetsam.training._train_state import TrainState, create_train_state
from forgetsam.training._train_step import make_train_step

__all__ = [
  "TrainState",
  "create_train_state",
  "make_eval_step",
  "make_train_step",
]
