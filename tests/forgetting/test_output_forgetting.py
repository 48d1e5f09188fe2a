"""Paired differences of the information in outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import slow_jackknife as slow

from forgetsam.forgetting import output_forgetting, output_information

FORGETTING = jax.jit(output_forgetting)
LABELS = np.repeat([0, 1, 2], [5, 8, 4])


def logits(seed, scale=1.0):
  rng = np.random.default_rng(seed)
  z = rng.normal(size=(len(LABELS), 3)) + 2 * np.eye(3)[LABELS]
  return scale * z


def softmax(z):
  p = np.exp(z - z.max(axis=1, keepdims=True))
  return p / p.sum(axis=1, keepdims=True)


def forget(before, after):
  return FORGETTING(
    jnp.asarray(before, jnp.float32),
    jnp.asarray(after, jnp.float32),
    jnp.asarray(LABELS),
  )


def test_from_certain_to_uniform_all_is_forgotten():
  report = forget(40 * np.eye(3)[LABELS], np.zeros((17, 3)))
  expected = slow.entropy(np.array([5, 8, 4]) / 17)
  forgotten = report.forgotten
  np.testing.assert_allclose(
    forgotten.unconditional.plug_in.value, expected, rtol=1e-5
  )
  np.testing.assert_allclose(forgotten.conditional.plug_in.value, 0, atol=1e-6)
  back = forget(np.zeros((17, 3)), 40 * np.eye(3)[LABELS]).forgotten
  np.testing.assert_allclose(
    back.unconditional.plug_in.value, -expected, rtol=1e-5
  )


def test_nothing_changes_nothing_forgotten_and_no_error():
  for one in forget(logits(0), logits(0)).forgotten:
    for estimate in one[:3]:
      np.testing.assert_allclose(estimate.value, 0, atol=1e-7)
      assert estimate.standard_error == 0


def test_before_and_after_are_output_information():
  before, after = logits(0), logits(1)
  report = forget(before, after)
  for found, z in ((report.before, before), (report.after, after)):
    expected = jax.jit(output_information)(
      jnp.asarray(softmax(z), jnp.float32), jnp.asarray(LABELS)
    )
    jax.tree.map(
      lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4), found, expected
    )


def test_paired_errors_against_deleting_and_recomputing():
  before = logits(0)
  after = 0.8 * before + 0.05 * logits(1)  # a small step, as offsets make
  report = forget(before, after)
  p, q = softmax(before), softmax(after)
  for name, make in (
    ("conditional", lambda p: slow.conditional(p, LABELS)),
    ("unconditional", slow.unconditional),
  ):
    first, second = make(p), make(q)
    whole, corrected, error = slow.stratified(
      lambda kept, w, a=first, b=second: a(kept, w) - b(kept, w), LABELS
    )
    found = getattr(report.forgotten, name)
    np.testing.assert_allclose(found.plug_in.value, whole, rtol=1e-3)
    np.testing.assert_allclose(found.jackknife.value, corrected, rtol=1e-3)
    np.testing.assert_allclose(found.jackknife.standard_error, error, rtol=1e-3)
    # Pairing pays: the networks' errors do not add up.
    alone = getattr(report.before, name).jackknife.standard_error
    assert found.jackknife.standard_error < 0.7 * alone
    np.testing.assert_allclose(
      found.bias_bound, getattr(report.before, name).bias_bound
    )


def test_low_precision_logits_are_read_in_float32():
  z = jnp.asarray(logits(0), jnp.bfloat16)
  report = FORGETTING(z, z, jnp.asarray(LABELS))
  expected = forget(z.astype(jnp.float32), z.astype(jnp.float32))
  np.testing.assert_array_equal(
    report.before.conditional.jackknife.value,
    expected.before.conditional.jackknife.value,
  )
