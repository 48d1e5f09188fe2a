import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from meshes import data_mesh
from sharpness.problems import (
  IMAGES,
  LABELS,
  PARAMS,
  STATE,
  N,
  batches_of,
  dense,
  draw,
  forward,
)

import forgetsam as fs
from forgetsam.sharpness import (
  dataset_loss,
  gradient_norm,
  hutchinson_trace,
)

SOFTMAX = fs.softmax_cross_entropy()
SIGMOID = fs.sigmoid_cross_entropy(label_smoothing=0.1)
_, unravel = ravel_pytree(PARAMS)
VECTOR = unravel(draw(8, ravel_pytree(PARAMS)[0].size))


def make_loss(size, count=N, *, loss=SOFTMAX, devices=None):
  mesh = None if devices is None else data_mesh(devices)
  return dataset_loss(forward, loss, STATE, batches_of(size, count), mesh=mesh)


def assert_close(tree, expected):
  scale = np.abs(expected).max()
  np.testing.assert_allclose(
    ravel_pytree(tree)[0], expected, rtol=1e-4, atol=1e-5 * scale
  )


def test_a_loss_may_return_a_number_per_example():
  each = make_loss(24, loss=optax.softmax_cross_entropy_with_integer_labels)
  np.testing.assert_allclose(
    each.value(PARAMS), make_loss(24).value(PARAMS), rtol=1e-6
  )


@pytest.mark.parametrize(
  ("size", "count", "loss", "devices"),
  [
    (24, N, SOFTMAX, None),
    (24, N, SIGMOID, None),
    (7, N, SOFTMAX, None),
    (7, 17, SIGMOID, None),
    (8, N, SOFTMAX, 8),
    (8, 17, SOFTMAX, 8),
  ],
)
def test_everything_equals_the_dense_matrices(size, count, loss, devices):
  actual = make_loss(size, count, loss=loss, devices=devices)
  expected = dense(loss, count)
  v = ravel_pytree(VECTOR)[0]
  value, gradient = actual.value_and_gradient(PARAMS)
  assert actual.num_examples == count
  np.testing.assert_allclose(value, expected.value, rtol=1e-5)
  np.testing.assert_allclose(actual.value(PARAMS), expected.value, rtol=1e-5)
  assert_close(gradient, expected.gradient)
  assert_close(
    actual.hessian_vector_product(PARAMS, VECTOR), expected.hessian @ v
  )
  assert_close(
    actual.gauss_newton_vector_product(PARAMS, VECTOR),
    expected.gauss_newton @ v,
  )
  np.testing.assert_allclose(
    gradient_norm(actual, PARAMS),
    np.linalg.norm(expected.gradient),
    rtol=1e-5,
  )


def test_parts_are_the_batches():
  parts = make_loss(7, 17).parts
  assert [part.num_examples for part in parts] == [7, 7, 3]
  last = dataset_loss(
    forward,
    SOFTMAX,
    STATE,
    [{"image": IMAGES[14:17], "label": LABELS[14:17]}],
  )
  np.testing.assert_allclose(
    parts[2].value(PARAMS), last.value(PARAMS), rtol=1e-6
  )


def test_soft_labels():
  soft = jax.nn.softmax(draw(9, N, 3))
  loss = dataset_loss(
    forward, SOFTMAX, STATE, [{"image": IMAGES, "label": soft}]
  )
  logits = forward(PARAMS, STATE, IMAGES, train=False, key=None)[0]
  expected = -(soft * jax.nn.log_softmax(logits)).sum(-1).mean()
  np.testing.assert_allclose(loss.value(PARAMS), expected, rtol=1e-5)


def test_a_program_serves_all_networks_and_datasets():
  traced = []

  def counted(*arguments, **options):
    traced.append(1)
    return forward(*arguments, **options)

  for scale in (1.0, 2.0):
    params = jax.tree.map(lambda x, s=scale: s * x, PARAMS)
    state = jax.tree.map(lambda x, s=scale: s * x, STATE)
    loss = dataset_loss(counted, SOFTMAX, state, batches_of(8))
    loss.hessian_vector_product(params, VECTOR)
    if scale == 1.0:
      first = len(traced)
  assert len(traced) == first


def test_products_are_in_the_highest_precision():
  loss = make_loss(24)
  program = str(
    jax.make_jaxpr(loss.hessian_vector_product)(PARAMS, VECTOR)
  ).replace("Precision.", "")
  dots = program.count("dot_general[")
  assert dots > 4
  assert (
    program.count("precision=(HIGHEST, HIGHEST)")
    + program.count("precision=HIGHEST")
    == dots
  )


def test_low_precision_weights_are_read_in_float32():
  low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
  wide = jax.tree.map(lambda x: x.astype(jnp.float32), low)
  loss = make_loss(24)
  for x, y in zip(
    jax.tree.leaves(loss.value_and_gradient(low)),
    jax.tree.leaves(loss.value_and_gradient(wide)),
    strict=True,
  ):
    assert x.dtype == jnp.float32
    np.testing.assert_array_equal(x, y)


def test_errors():
  one = {"image": IMAGES, "label": LABELS}
  for batches, message in [
    ([], "at least one unmasked"),
    ([one | {"mask": jnp.zeros(N)}], "at least one unmasked"),
    ([one, {"image": IMAGES[:3], "label": LABELS[:3]}], r"\[3, 24\]"),
    ([one | {"mask": jnp.ones((3, 2))}], r"shape \(3, 2\)"),
  ]:
    with pytest.raises(ValueError, match=message):
      dataset_loss(forward, SOFTMAX, STATE, batches)
  with pytest.raises(ValueError, match="8 devices must divide"):
    make_loss(7, devices=8)


def test_positions_count_by_their_weight():
  """A position of weight 2 is two examples, and one of weight 0 is none."""
  weights = np.array([1, 0, 2] * 8)
  labels = np.where(weights > 0, LABELS, -1)
  sequences = {"image": IMAGES, "label": labels, "mask": weights}
  sequences = jax.tree.map(lambda x: x.reshape(8, 3, *x.shape[1:]), sequences)
  parts = [{k: x[i : i + 4] for k, x in sequences.items()} for i in (0, 4)]
  actual = dataset_loss(forward, SOFTMAX, STATE, parts)
  rows = np.repeat(np.arange(N), weights)
  examples = {"image": IMAGES[rows], "label": LABELS[rows]}
  expected = dataset_loss(forward, SOFTMAX, STATE, [examples])
  assert actual.num_examples == expected.num_examples == 24
  for name in ("hessian_vector_product", "gauss_newton_vector_product"):
    product = getattr(expected, name)(PARAMS, VECTOR)
    assert_close(
      getattr(actual, name)(PARAMS, VECTOR), ravel_pytree(product)[0]
    )
  np.testing.assert_allclose(
    actual.value(PARAMS), expected.value(PARAMS), rtol=1e-5
  )


def test_examples_count_by_their_weight():
  """Under other keys, too; an example of weight 1.5 is three of a half."""
  weights = np.array([1.5, 0, 0.5] * 8)
  batch = {"x": IMAGES, "y": LABELS, "mask": weights}
  actual = dataset_loss(
    forward, SOFTMAX, STATE, [batch], inputs="x", labels="y"
  )
  rows = np.repeat(np.arange(N), (2 * weights).astype(int))
  examples = {"image": IMAGES[rows], "label": LABELS[rows]}
  expected = dataset_loss(forward, SOFTMAX, STATE, [examples])
  assert actual.num_examples == 16
  np.testing.assert_allclose(
    actual.value(PARAMS), expected.value(PARAMS), rtol=1e-5
  )


def test_a_loss_of_ones_own_may_give_a_number_per_example():
  targets = draw(9, N, 3)
  batch = {"image": IMAGES, "label": targets}
  actual = dataset_loss(forward, optax.squared_error, STATE, [batch])
  outputs, _ = forward(PARAMS, STATE, IMAGES, train=False, key=None)
  expected = np.mean((outputs - targets) ** 2)
  np.testing.assert_allclose(actual.value(PARAMS), expected, rtol=1e-5)


def test_complex_parameters_are_refused_by_name():
  params = {"w": jnp.ones((2, 2), jnp.complex64)}
  batch = {"image": jnp.eye(2), "label": jnp.array([0, 1])}
  loss = dataset_loss(
    lambda p, s, x, *, train, key: ((x @ p["w"]).real, s),
    fs.softmax_cross_entropy(),
    {},
    [batch],
  )
  for measure in (loss.value, loss.value_and_gradient):
    with pytest.raises(ValueError, match=r"\['w'\] is complex64.*two"):
      measure(params)
  with pytest.raises(ValueError, match=r"\['w'\] is complex64.*two"):
    hutchinson_trace(lambda v: v, params, jax.random.key(0), num_samples=2)


def test_labels_that_do_not_fit_are_refused():
  batches = [b | {"label": b["label"][:, None]} for b in batches_of(24, N)]
  with pytest.raises(ValueError, match=r"say labels\[:, 0\]"):
    dataset_loss(forward, SOFTMAX, STATE, batches).value(PARAMS)
  batches = [b | {"index": b["label"]} for b in batches_of(24, N)]
  with pytest.raises(ValueError, match=r"\['index'\], which nothing reads"):
    dataset_loss(forward, SOFTMAX, STATE, batches)


def test_a_label_that_is_no_class_gives_nan_unless_it_is_padding():
  [batch] = batches_of(24, N)
  wrong = batch | {"label": np.where(np.arange(24) == 5, -1, batch["label"])}
  loss = dataset_loss(forward, SOFTMAX, STATE, [wrong])
  assert np.isnan(loss.value(PARAMS))
  without = {"mask": np.arange(24) != 5}
  values = [
    dataset_loss(forward, SOFTMAX, STATE, [b | without]).value(PARAMS)
    for b in (wrong, batch)
  ]
  assert values[0] == values[1]
