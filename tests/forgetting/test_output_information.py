"""Information in outputs: closed forms, a slow jackknife, and simulations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import slow_jackknife as slow

from forgetsam.forgetting import output_information
from forgetsam.forgetting._output_information import _divergence

INFORMATION = jax.jit(output_information)
LABELS = np.repeat([0, 1, 2], [4, 7, 3])


def draw_outputs(seed, labels=LABELS, num_classes=3):
  """Outputs that lean towards the label, and differ within classes."""
  rng = np.random.default_rng(seed)
  logits = rng.normal(size=(len(labels), num_classes))
  logits[np.arange(len(labels)), labels] += 1
  p = np.exp(logits)
  return p / p.sum(axis=1, keepdims=True)


def information(p, labels=LABELS):
  return INFORMATION(jnp.asarray(p, jnp.float32), jnp.asarray(labels))


def test_certain_predictions_expose_the_entropy_of_their_mix():
  predictions = np.array([0, 0, 1, 1, 2, 2, 2, 0])
  labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
  found = information(np.eye(3)[predictions], labels)
  mix, first, second = [3 / 8, 2 / 8, 3 / 8], [1 / 2, 1 / 2], [3 / 4, 1 / 4]
  np.testing.assert_allclose(
    found.unconditional.plug_in.value, scipy.stats.entropy(mix), rtol=1e-6
  )
  np.testing.assert_allclose(
    found.conditional.plug_in.value,
    (scipy.stats.entropy(first) + scipy.stats.entropy(second)) / 2,
    rtol=1e-6,
  )
  # Gini: sum_k q_k (1 - q_k), with n / (n - 1) for each class's variance.
  np.testing.assert_allclose(
    found.conditional.variance.value,
    4 / 3 * (1 / 2 + (1 - 10 / 16)) / 2,
    rtol=1e-6,
  )


def test_constant_predictions_expose_nothing():
  found = information(np.tile([0.2, 0.7, 0.1], (14, 1)))
  for one in found:
    for estimate in one[:3]:
      np.testing.assert_allclose(estimate.value, 0, atol=1e-6)
      np.testing.assert_allclose(estimate.standard_error, 0, atol=1e-6)


def test_labels_alone_are_unconditional_information():
  """Outputs that are the same within a class: I(X; Yhat) = I(Y; Yhat)."""
  per_class = np.array([[0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.0, 0.5, 0.5]])
  found = information(per_class[LABELS])
  np.testing.assert_allclose(found.conditional.plug_in.value, 0, atol=1e-6)
  share = np.array([4, 7, 3]) / 14
  expected = slow.entropy(share @ per_class) - share @ slow.entropy(per_class)
  for estimate in found.unconditional[:2]:
    np.testing.assert_allclose(estimate.value, expected, rtol=1e-5)
    np.testing.assert_allclose(estimate.standard_error, 0, atol=1e-6)


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 8.0])
def test_against_deleting_and_recomputing(sharpness):
  p = draw_outputs(0) ** sharpness
  p = p / p.sum(axis=1, keepdims=True)
  found = information(p)
  for one, entropy_form, variance_form in (
    (
      found.conditional,
      slow.conditional(p, LABELS),
      slow.conditional_variance(p, LABELS),
    ),
    (
      found.unconditional,
      slow.unconditional(p),
      slow.unconditional_variance(p, LABELS),
    ),
  ):
    whole, corrected, error = slow.stratified(entropy_form, LABELS)
    np.testing.assert_allclose(one.plug_in.value, whole, rtol=1e-4)
    np.testing.assert_allclose(one.jackknife.value, corrected, rtol=1e-4)
    for estimate in (one.plug_in, one.jackknife):
      np.testing.assert_allclose(estimate.standard_error, error, rtol=1e-4)
    whole, _, error = slow.stratified(variance_form, LABELS)
    np.testing.assert_allclose(one.variance.value, whole, rtol=1e-4)
    np.testing.assert_allclose(one.variance.standard_error, error, rtol=1e-4)


@pytest.mark.parametrize("n", [5, 100, 20_000])
def test_the_correction_keeps_its_digits(n):
  """It is of order 1/n: a difference of two entropies would lose it."""
  rng = np.random.default_rng(0)
  p = rng.beta(0.3, 3.0, size=(n, 1))  # skewed
  p = np.concatenate([p, 1 - p], axis=1)
  mean = p.mean(axis=0)
  shift = -(p - mean) / (n - 1)
  # Linear terms cancel in the mean, and not in each example's divergence.
  q = mean + shift
  exact = np.sum(q * np.log(q / mean), axis=1)
  found = _divergence(
    jnp.broadcast_to(jnp.asarray(mean, jnp.float32), p.shape),
    jnp.asarray(shift, jnp.float32),
  )
  np.testing.assert_allclose(np.mean(found), np.mean(exact), rtol=2e-4)
  # Where float64 has the digits for it, one by one.
  large = exact > 1e-9
  np.testing.assert_allclose(found[large], exact[large], rtol=2e-4)


# One of these outputs, with these probabilities, in each of two classes.
OUTPUTS = np.array(
  [[[0.9, 0.05, 0.05], [0.3, 0.4, 0.3]], [[0.1, 0.8, 0.1], [0.1, 0.2, 0.7]]]
)
CHANCE = np.array([0.3, 0.6])  # of the first output, per class


def true_values():
  q = np.stack([CHANCE, 1 - CHANCE], axis=1)
  means = np.einsum("co,cok->ck", q, OUTPUTS)
  inside = np.sum(q * slow.entropy(OUTPUTS), axis=1)
  squares = np.einsum("co,cok->c", q, OUTPUTS**2)
  mean = means.mean(axis=0)
  return {
    "conditional": (
      np.mean(slow.entropy(means) - inside),
      np.mean(squares - np.sum(means**2, axis=1)),
    ),
    "unconditional": (
      slow.entropy(mean) - inside.mean(),
      squares.mean() - mean @ mean,
    ),
  }


def simulate(per_class, probes, seed=0):
  labels = np.repeat([0, 1], per_class)
  rng = np.random.default_rng(seed)
  which = rng.uniform(size=(probes, len(labels))) > CHANCE[labels]
  p = OUTPUTS[labels, which.astype(int)]
  batch = jax.jit(jax.vmap(output_information, in_axes=(0, None)))
  return batch(jnp.asarray(p, jnp.float32), jnp.asarray(labels))


@pytest.mark.parametrize("name", ["conditional", "unconditional"])
def test_bias_and_errors_are_as_stated(name):
  found, (entropy, variance) = (
    getattr(simulate(12, 4000), name),
    true_values()[name],
  )

  def mean(estimate):
    values = np.asarray(estimate.value, np.float64)
    return values.mean(), values.std() / np.sqrt(len(values))

  plug_in, error = mean(found.plug_in)
  bound = float(found.bias_bound[0])
  assert -bound < plug_in - entropy < -6 * error
  corrected, error = mean(found.jackknife)
  assert abs(corrected - entropy) < 0.15 * abs(plug_in - entropy) + 3 * error
  unbiased, error = mean(found.variance)
  assert abs(unbiased - variance) < 4 * error
  for estimate in found[:3]:
    spread = np.std(estimate.value)
    claimed = np.sqrt(np.mean(np.square(estimate.standard_error)))
    assert 0.95 < claimed / spread < 1.2


@pytest.mark.parametrize("name", ["conditional", "unconditional"])
def test_the_variance_form_is_unbiased_from_two_examples_per_class(name):
  found = getattr(simulate(2, 20_000, seed=1), name)
  values = np.asarray(found.variance.value, np.float64)
  error = values.std() / np.sqrt(len(values))
  assert abs(values.mean() - true_values()[name][1]) < 4 * error
  # ... and has no error of its own there, while the entropy form is far off.
  assert np.all(np.isnan(found.variance.standard_error))
  if name == "conditional":
    assert found.plug_in.value.mean() < 0.6 * true_values()[name][0]


def test_bias_bounds_in_closed_form():
  found = information(draw_outputs(0))
  np.testing.assert_allclose(
    found.unconditional.bias_bound, np.log(1 + 2 / 14), rtol=1e-6
  )
  expected = np.mean(np.log(1 + 2 / np.repeat([4, 7, 3], [4, 7, 3])))
  np.testing.assert_allclose(found.conditional.bias_bound, expected, rtol=1e-6)


def test_the_bias_bound_is_nearly_reached_by_certain_outputs():
  rng = np.random.default_rng(0)
  classes = rng.integers(10, size=(2000, 30))
  batch = jax.jit(jax.vmap(output_information, in_axes=(0, None)))
  found = batch(jnp.eye(10)[classes], jnp.zeros(30, int)).unconditional
  bias = np.log(10) - found.plug_in.value.mean()
  assert 0.6 * found.bias_bound[0] < bias < found.bias_bound[0]


def test_a_single_example_of_a_class_has_no_error_and_no_correction():
  labels = np.array([0, 0, 0, 1])
  found = information(draw_outputs(1, labels), labels)
  assert np.isfinite(found.conditional.plug_in.value)
  for one in found:
    assert np.isnan(one.jackknife.value)
    assert np.isnan(one.variance.value)
    assert np.isnan(one.plug_in.standard_error)


def test_classes_that_are_not_in_the_probe_do_not_count():
  labels = np.array([0, 0, 0, 2, 2, 2])
  found = information(draw_outputs(1, labels), labels)
  expected, _, error = slow.stratified(
    slow.conditional(draw_outputs(1, labels), labels), labels
  )
  plug_in = found.conditional.plug_in
  np.testing.assert_allclose(plug_in.value, expected, rtol=1e-4)
  np.testing.assert_allclose(plug_in.standard_error, error, rtol=1e-4)


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0]])
def test_labels_out_of_range_are_refused(labels):
  with pytest.raises(ValueError, match=r"labels must be class indices in \[0"):
    output_information(jnp.ones((2, 3)) / 3, jnp.array(labels))
