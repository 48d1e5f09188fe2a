"""How good a model is on a split."""

from forgetsam.evaluation._evaluate import evaluate

__all__ = ["evaluate"]
