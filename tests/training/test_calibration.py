"""One calibration error, with confidences on the edges of bins."""

import jax.numpy as jnp
import numpy as np
import pytest

import forgetsam as fs
from forgetsam.experiment.evaluation import evaluate
from forgetsam.forgetting import output_shift
from forgetsam.training import confidence_bins

# With 15 classes of which k are equally likely, the confidence is 1/k exactly.
ON_EDGES = (15, 5, 3, 1)


def on_edges():
  """Logits whose confidence is 1/15, 1/5, 1/3 or 1, or just above 1/5."""
  rows = [jnp.where(jnp.arange(15) < k, 0.0, -90.0) for k in ON_EDGES] * 3
  above = jnp.where(jnp.arange(15) < 5, 0.0, -90.0).at[0].set(0.1)
  return jnp.stack([*rows, above, above]), jnp.arange(len(rows) + 2) % 2


@pytest.mark.parametrize("num_bins", [1, 2, 10, 15])
def test_an_edge_belongs_to_the_lower_bin(num_bins):
  # NumPy's quotient is rounded correctly, XLA's by a constant is not.
  edges = jnp.asarray(np.arange(1, num_bins + 1) / num_bins, jnp.float32)
  np.testing.assert_array_equal(
    confidence_bins(edges, num_bins), np.eye(num_bins)
  )
  above = edges[:-1] + 1e-6
  np.testing.assert_array_equal(
    confidence_bins(above, num_bins), np.eye(num_bins)[1:]
  )


def test_zero_and_nan_are_in_the_first_bin():
  found = confidence_bins(jnp.array([0.0, jnp.nan]), 3)
  np.testing.assert_array_equal(found, [[1, 0, 0]] * 2)


def test_evaluation_and_forgetting_agree_on_edges():
  logits, labels = on_edges()

  def forward(params, model_state, images, *, train, key):
    return images, model_state

  batch = {"image": logits, "label": labels}
  evaluated = evaluate(fs.make_eval_step(forward), {}, {}, [batch])["ece"]
  shift = output_shift(logits, logits, labels)
  assert shift.before.calibration_error.value == pytest.approx(evaluated)
  # Bins as Guo et al. define them, one example after the other.
  p = np.asarray(jnp.max(jnp.exp(logits - logits.max()), axis=1))
  p = p / np.asarray(jnp.exp(logits - logits.max()).sum(axis=1))
  right = np.asarray(labels == 0)
  total = 0.0
  for b in range(15):
    inside = (p > b / 15 + 1e-7) & (p <= (b + 1) / 15 + 1e-7)
    total += abs(np.sum(p[inside] - right[inside]))
  assert evaluated == pytest.approx(total / len(labels), rel=1e-5)
