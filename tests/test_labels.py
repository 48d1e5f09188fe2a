"""Labels, weights and logits in losses and signals: right, or refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import forgetsam as fs

LOSSES = [fs.softmax_cross_entropy(), fs.sigmoid_cross_entropy(0.1)]
SIGNALS = [
  fs.output_bias_forgetting(),
  fs.output_bias_forgetting(0.1, 0.7, "softmax"),
  *map(fs.loss_ascent, LOSSES),
]
ALL = [*LOSSES, *SIGNALS, fs.pseudo_loss(SIGNALS[0])]
Z = 3 * jnp.eye(4)
INDICES = np.arange(4)


@pytest.mark.parametrize(
  ("labels", "message"),
  [
    (INDICES[:, None], r"labels of shape \(4, 1\).*\(4, 4\): say labels\[:, 0"),
    (INDICES[None], r"labels of shape \(1, 4\).*class indices \(4,\)"),
    (INDICES[:3], r"labels of shape \(3,\).*class indices \(4,\)"),
    (np.eye(4, 3), r"labels of shape \(4, 3\).*distributions \(4, 4\)"),
    (np.int32(2), r"labels of shape \(\).*class indices \(4,\)"),
    (INDICES > 1, r"labels.*are bool.*labels\.astype\('int32'\)"),
    (np.eye(4) > 0, r"labels.*are bool.*labels\.astype\('float32'\)"),
    (INDICES * 1.0, r"labels.*are float\d+.*labels\.astype\('int32'\)"),
    (np.eye(4) * 1j, r"labels.*are complex.*labels\.astype\('float32'\)"),
    (np.array(list("abcd")), "labels are <U1: they must be numbers"),
    (INDICES + 2**32, r"labels hold 4294967296: .*32 bits"),
    (np.array([0, 1, None, 2]), "labels are object: they must be numbers"),
  ],
)
def test_labels_that_do_not_fit_are_refused(labels, message):
  for function in ALL:
    with pytest.raises(ValueError, match=message):
      function(Z, labels)


@pytest.mark.parametrize(
  ("logits", "message"),
  [
    (Z[0], r"logits of shape \(4,\).*logits\[None\]"),
    (Z[:, :1], r"logits of shape \(4, 1\).*give.* two outputs"),
    (Z[:0], r"logits of shape \(0, 4\) hold no example"),
    (Z.astype(int), "logits are int32: they must be floating-point"),
    (Z > 0, "logits are bool: they must be floating-point"),
    (Z * 1j, "logits are complex64: they must be floating-point"),
  ],
)
def test_logits_that_are_none_are_refused(logits, message):
  for function in ALL:
    with pytest.raises(ValueError, match=message):
      function(logits, np.zeros(logits.shape[:1], int))


@pytest.mark.parametrize(
  ("where", "message"),
  [
    (np.ones((4, 1)), r"where of shape \(4, 1\).*say where\[:, 0\]"),
    (np.ones((4, 4)), r"where of shape \(4, 4\).*examples \(4,\)"),
    (1.0, r"where of shape \(\).*examples \(4,\)"),
    (np.ones(4) * 1j, "where is complex.*must be real"),
    (np.array(list("abcd")), "where are <U1: they must be numbers"),
  ],
)
def test_weights_that_do_not_fit_are_refused(where, message):
  for function in ALL:
    with pytest.raises(ValueError, match=message):
      function(Z, INDICES, where=where)


def test_a_loss_or_signal_without_weights_is_named():
  signal = fs.pseudo_loss(lambda logits, labels: logits)
  with pytest.raises(ValueError, match="signal takes no `where`"):
    signal(Z, INDICES, where=np.ones(4))
  plain = lambda logits, labels: jnp.mean(logits)  # noqa: E731
  for loss, own, name in (
    (plain, SIGNALS[0], "loss"),
    (LOSSES[0], fs.loss_ascent(plain), "signal"),
  ):
    both = fs.ascent_and_descent(lambda p: p, loss, own)
    with pytest.raises(ValueError, match=f"{name} takes no `where`"):
      both(Z, INDICES, where=np.ones(4))[1](Z)


@pytest.mark.parametrize("label", [-1, 4, 255])
def test_a_label_that_is_no_class_gives_nan(label):
  labels = INDICES.copy()
  labels[1] = label
  for loss in LOSSES:
    assert np.isnan(loss(Z, labels))
    assert np.isnan(jax.jit(loss)(Z, labels))  # XLA may take 0 * nan for 0
  for signal in SIGNALS:
    found = np.isnan(jax.jit(signal)(Z, labels))
    np.testing.assert_array_equal(found.all(axis=1), INDICES == 1)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64])
def test_a_narrow_label_counts_no_class_twice(dtype):
  logits = jax.random.normal(jax.random.key(0), (2, 300))
  for function in (LOSSES[0], SIGNALS[0]):
    np.testing.assert_array_equal(
      function(logits, np.array([5, 100], dtype)),
      function(logits, np.array([5, 100], np.int32)),
    )


def test_every_position_counts_alike():
  K = 7
  logits = jax.random.normal(jax.random.key(0), (K, K, K))
  labels = np.arange(K * K).reshape(K, K) % K
  flat = logits.reshape(-1, K), labels.reshape(-1)
  for loss in LOSSES:
    np.testing.assert_allclose(loss(logits, labels), loss(*flat), rtol=1e-6)
  for signal in SIGNALS[:1]:
    np.testing.assert_allclose(
      signal(logits, labels).reshape(-1, K), signal(*flat), atol=1e-7
    )


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("soft", [False, True])
def test_what_has_no_weight_does_not_matter(soft, poison):
  """Padding with label -1 or nan, and outputs that are not finite."""
  z = jax.random.normal(jax.random.key(0), (2, 3, 4))
  labels = jnp.array([[0, 1, -1], [2, -1, 9]])
  where = np.array([[2, 1, 0], [1, 0, 0]])
  keep = where > 0
  clean = jnp.where(keep, labels, 0)
  if soft:
    clean = jax.nn.one_hot(clean, 4)
    labels = jnp.where(keep[..., None], clean, poison)
  padded = jnp.where(keep[..., None], z, poison)
  repeated = np.array([0, 0, 1, 3])  # a weight of 2 is the same position twice
  few = [x.reshape(6, *x.shape[2:])[repeated] for x in (z, clean)]
  for loss in LOSSES:
    value, gradient = jax.value_and_grad(loss)(padded, labels, where=where)
    np.testing.assert_allclose(value, loss(*few), rtol=1e-6)
    assert np.isfinite(gradient).all()
  for signal in SIGNALS:
    found = signal(padded, labels, where=where)
    np.testing.assert_array_equal(found[~keep], 0)
    parts = signal(*few)
    np.testing.assert_allclose(found[0, 0], 2 * parts[0], atol=1e-7)
    np.testing.assert_allclose(found[keep][1:], parts[2:], atol=1e-7)
  objective = fs.pseudo_loss(SIGNALS[0])
  value, gradient = jax.value_and_grad(objective)(padded, labels, where=where)
  np.testing.assert_allclose(value, objective(*few), rtol=1e-5)
  np.testing.assert_array_equal(gradient[~keep], 0)


def test_without_any_weight_everything_is_zero():
  for function in ALL:
    result = function(Z, INDICES - 1, where=np.zeros(4, bool))
    np.testing.assert_array_equal(result, jnp.zeros_like(result))


def test_padding_is_no_nan_on_the_way():
  """Outside of jit, where JAX_DEBUG_NANS sees each operation's result."""
  labels, where = jnp.array([0, 1, -1, 9]), np.array([1, 2, 0, 0])
  with jax.debug_nans(True):
    for function in ALL:
      assert jnp.isfinite(function(Z, labels, where=where)).all()


# The last overflows as a sum, where each position's share would be 0.
@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf, [3e38, 3e38]])
def test_an_impossible_weight_gives_nan(bad):
  where = np.array([*np.ravel(bad), 1, 1, 0])[:4]
  for loss in LOSSES:
    assert np.isnan(loss(Z, INDICES, where=where))
  for signal in SIGNALS:
    assert np.isnan(signal(Z, INDICES, where=where)).any()


def test_weights_of_examples_weigh_all_their_positions():
  z = jax.random.normal(jax.random.key(0), (2, 3, 4))
  labels, where = jnp.array([[0, 1, 2], [3, 0, 1]]), np.array([1.0, 3.0])
  for function in ALL:
    np.testing.assert_array_equal(
      function(z, labels, where=where),
      function(z, labels, where=np.repeat(where[:, None], 3, 1)),
    )


def test_ascent_and_descent_takes_weights():
  """Of a batch with padding and without it."""
  images = jax.random.normal(jax.random.key(0), (6, 5))
  labels, where = jnp.array([0, 1, 2, 0, -1, 7]), np.array([1, 1, 1, 1, 0, 0])
  params = jax.random.normal(jax.random.key(1), (5, 3))

  def gradients(images, labels, **weights):
    both = fs.ascent_and_descent(lambda w: images @ w, LOSSES[0], SIGNALS[0])
    ascent, grad_fn, aux = both(params, labels, **weights)
    return ascent, grad_fn(params), aux.loss

  found = gradients(images, labels, where=where)
  for one, other in zip(found, gradients(images[:4], labels[:4]), strict=True):
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_int_distributions_are_used_as_given():
  rows = np.eye(4, dtype=np.int32)
  for function in ALL:
    np.testing.assert_array_equal(
      function(Z, rows), function(Z, rows.astype(np.float32))
    )


def test_a_partial_and_a_compiled_loss_take_weights_too():
  where = np.array([1, 0, 1, 0])
  expected = LOSSES[0](Z, INDICES, where=where)
  for loss in (jax.jit(LOSSES[0]), functools.partial(LOSSES[0])):
    both = fs.ascent_and_descent(lambda p: p, loss, fs.loss_ascent(loss))
    _, _, aux = both(Z, INDICES, where=where)
    np.testing.assert_allclose(aux.loss, expected, rtol=1e-6)
