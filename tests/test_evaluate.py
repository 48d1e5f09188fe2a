"""Evaluation divides sums by what counts."""

import jax.numpy as jnp
import pytest

from forgetsam.evaluation import evaluate


def test_means_are_over_examples_not_batches():
  parts = [
    {
      "loss": jnp.array(6.0),
      "correct": jnp.array(1.0),
      "count": jnp.array(3.0),
    },
    {
      "loss": jnp.array(2.0),
      "correct": jnp.array(1.0),
      "count": jnp.array(1.0),
    },
  ]
  result = evaluate(lambda p, s, batch: batch, None, None, parts)
  assert result == {"loss": 2.0, "accuracy": 0.5}


def test_no_example_is_an_error():
  with pytest.raises(ValueError, match="at least one"):
    evaluate(lambda p, s, batch: batch, None, None, [])
