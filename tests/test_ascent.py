"""OBF, the losses and their gradients against the official code's numbers."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import forgetsam as fs

GOLDEN = np.load(
  Path(__file__).parent / "golden" / "output_bias_forgetting.npz"
)
CASES = [
  name.split("/")[0] for name in GOLDEN.files if name.endswith("logits_grad")
]
LOSSES = [
  name.removesuffix("/bce") for name in GOLDEN.files if name.endswith("/bce")
]


def test_every_case_is_found():
  assert len(CASES) == 96
  assert len(LOSSES) == 4


def golden_signal(case):
  meta = json.loads(str(GOLDEN[f"{case}/meta"]))
  return fs.output_bias_forgetting(
    lam=0.0 if meta["C"] < 0 else 1 / meta["C"],
    gamma=meta["gamma"],
    activation="sigmoid" if meta["sigmoid"] else "softmax",
  )


@pytest.mark.parametrize("case", CASES)
def test_signal_is_the_official_gradient(case):
  logits, labels = GOLDEN[f"{case}/logits"], GOLDEN[f"{case}/labels"]
  expected = GOLDEN[f"{case}/logits_grad"]
  signal = golden_signal(case)

  single = signal(jnp.asarray(logits, jnp.float32), jnp.asarray(labels))
  assert single.dtype == jnp.float32
  np.testing.assert_allclose(single, expected, atol=1e-5)

  with jax.enable_x64(True):
    z, y = jnp.asarray(logits), jnp.asarray(labels)
    np.testing.assert_allclose(signal(z, y), expected, atol=1e-10, rtol=0)
    objective = fs.pseudo_loss(signal)
    value, gradient = jax.value_and_grad(objective)(z, y)
    np.testing.assert_allclose(value, GOLDEN[f"{case}/value"], rtol=1e-10)
    np.testing.assert_allclose(gradient, expected, atol=1e-10, rtol=0)


def test_saturated_logits_are_among_the_cases():
  assert all(np.abs(GOLDEN[f"{case}/logits"]).max() >= 40 for case in CASES)


@pytest.mark.parametrize("case", LOSSES)
def test_losses_are_the_official_values(case):
  smoothing = float(case.split("_")[1])
  losses = {
    "bce": fs.sigmoid_cross_entropy(label_smoothing=smoothing),
    "ce": fs.softmax_cross_entropy(label_smoothing=smoothing),
  }
  labels = jnp.asarray(GOLDEN[f"{case}/labels"])
  for name, loss in losses.items():
    expected = GOLDEN[f"{case}/{name}"]
    logits = GOLDEN[f"{case}/logits"]
    single = loss(jnp.asarray(logits, jnp.float32), labels)
    np.testing.assert_allclose(single, expected, rtol=1e-6)
    with jax.enable_x64(True):
      np.testing.assert_allclose(
        loss(jnp.asarray(logits), labels), expected, rtol=1e-10
      )


def test_lambda_defaults_to_one_over_the_number_of_classes():
  logits = jax.random.normal(jax.random.key(0), (8, 5))
  labels = jnp.arange(8) % 5
  np.testing.assert_array_equal(
    fs.output_bias_forgetting()(logits, labels),
    fs.output_bias_forgetting(lam=1 / 5)(logits, labels),
  )


def test_an_example_below_lambda_forgets_its_label():
  logits = jnp.array([[-9.0, 2.0]])  # p_y is far below 1/2: alpha = 0
  direction = fs.output_bias_forgetting(lam=0.5)(logits, jnp.array([0]))
  np.testing.assert_allclose(direction, [[-0.5, 0.5]], atol=1e-7)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize(("lam", "alpha"), [(0.0, 1.0), (0.1, 0.0)])
def test_a_probability_that_underflows_to_zero(activation, lam, alpha):
  """p_y is exactly 0: lam / p_y must not become 0 / 0."""
  logits = jnp.array([[-500.0, 500.0]])
  signal = fs.output_bias_forgetting(lam=lam, activation=activation)
  p, y = np.array([0.0, 1.0]), np.array([1.0, 0.0])
  expected = 0.5 - alpha * p - (1 - alpha) * y
  np.testing.assert_allclose(signal(logits, jnp.array([0]))[0], expected)


def test_soft_labels_enter_through_their_inner_product_with_p():
  logits = jnp.log(jnp.array([[0.5, 0.25, 0.25]]))
  soft = jnp.array([[0.5, 0.5, 0.0]])
  lam, p_y = 1 / 3, 0.375
  alpha = (1 - lam / p_y) / (1 - lam)
  p = np.array([0.5, 0.25, 0.25])
  expected = 1 / 3 - alpha * p - (1 - alpha) * np.array([0.5, 0.5, 0.0])
  signal = fs.output_bias_forgetting(activation="softmax")
  np.testing.assert_allclose(signal(logits, soft)[0], expected, atol=1e-6)


def test_one_hot_labels_equal_class_indices():
  logits = jax.random.normal(jax.random.key(0), (6, 4))
  labels = jnp.arange(6) % 4
  one_hot = jax.nn.one_hot(labels, 4)
  for signal in (
    fs.output_bias_forgetting(),
    fs.loss_ascent(fs.softmax_cross_entropy()),
    fs.loss_ascent(fs.sigmoid_cross_entropy()),
  ):
    np.testing.assert_allclose(
      signal(logits, labels), signal(logits, one_hot), atol=1e-7
    )


def test_smoothing_leaves_soft_labels_as_given():
  logits = jax.random.normal(jax.random.key(0), (6, 4))
  soft = jax.nn.softmax(jax.random.normal(jax.random.key(1), (6, 4)))
  for loss in (fs.softmax_cross_entropy, fs.sigmoid_cross_entropy):
    assert loss(0.3)(logits, soft) == loss(0.0)(logits, soft)
  np.testing.assert_allclose(
    fs.softmax_cross_entropy(0.3)(logits, soft),
    optax.softmax_cross_entropy(logits, soft).mean(),
    rtol=1e-6,
  )


def test_signals_keep_the_dtype_of_low_precision_logits():
  logits = jax.random.normal(jax.random.key(0), (6, 4))
  labels = jnp.arange(6) % 4
  signal = fs.output_bias_forgetting()
  half = signal(logits.astype(jnp.bfloat16), labels)
  assert half.dtype == jnp.bfloat16
  np.testing.assert_allclose(
    half.astype(jnp.float32), signal(logits, labels), atol=4e-3
  )


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"lam": 1.0}, "lam=1.0"),
    ({"lam": -0.1}, "lam=-0.1"),
    ({"lam": float("nan")}, "lam=nan"),
    ({"gamma": 1.5}, "gamma=1.5"),
    ({"gamma": -1}, "gamma=-1"),
    ({"activation": "tanh"}, "'sigmoid', 'softmax'"),
  ],
)
def test_impossible_hyper_parameters_are_refused(arguments, message):
  with pytest.raises(ValueError, match=message):
    fs.output_bias_forgetting(**arguments)


def test_a_single_class_is_refused():
  with pytest.raises(ValueError, match="needs at least two"):
    fs.output_bias_forgetting()(jnp.zeros((3, 1)), jnp.zeros(3, jnp.int32))


def test_traced_hyper_parameters_are_accepted():
  logits = jax.random.normal(jax.random.key(0), (6, 4))
  labels = jnp.arange(6) % 4
  gammas, lams = jnp.array([0.0, 0.5, 1.0]), jnp.array([0.0, 0.25, 0.5])
  mapped = jax.vmap(
    lambda lam, gamma: fs.output_bias_forgetting(lam, gamma)(logits, labels)
  )(lams, gammas)
  for i in range(3):
    signal = fs.output_bias_forgetting(float(lams[i]), float(gammas[i]))
    np.testing.assert_allclose(mapped[i], signal(logits, labels), atol=1e-6)


def test_ascent_and_descent_takes_one_forward_pass():
  images = jax.random.normal(jax.random.key(0), (8, 5))
  labels = jnp.arange(8) % 3
  params = {"kernel": jax.random.normal(jax.random.key(1), (5, 3))}
  loss, signal = fs.softmax_cross_entropy(), fs.output_bias_forgetting()
  calls = []

  def logits_fn(params):
    calls.append(1)
    return images @ params["kernel"]

  f = fs.ascent_and_descent(logits_fn, loss, signal)
  ascent_grads, grad_fn, aux = f(params, labels)
  assert len(calls) == 1
  logits = images @ params["kernel"]
  np.testing.assert_allclose(aux.logits, logits)
  np.testing.assert_allclose(aux.loss, loss(logits, labels), rtol=1e-6)
  np.testing.assert_allclose(
    ascent_grads["kernel"], images.T @ signal(logits, labels), atol=1e-6
  )
  np.testing.assert_allclose(
    grad_fn(params)["kernel"],
    images.T @ jax.grad(loss)(logits, labels),
    atol=1e-6,
  )


def test_outputs_and_labels_may_be_trees():
  """With a loss per example, whose mean is by weight; nan where that is 0."""
  x, labels = jnp.array([[1.0], [2.0], [-1.0]]), {"y": jnp.array([1.0, 0, 2])}
  where = jnp.array([1.0, 3.0, 0.0])

  def outputs_fn(w):
    return {"a": (x * w)[:, 0], "b": (x**2 * w)[:, 1]}

  def loss(outputs, labels):
    return (outputs["a"] - labels["y"]) ** 2 + jnp.sin(outputs["b"])

  def mean(w):
    return jnp.average(loss(outputs_fn(w), labels), weights=where)

  w, signal = jnp.array([0.5, -1.5]), fs.loss_ascent(loss)
  both = fs.ascent_and_descent(outputs_fn, loss, signal)
  ascent_grads, grad_fn, aux = both(w, labels, where=where)
  for found in (ascent_grads, grad_fn(w)):
    np.testing.assert_allclose(found, jax.grad(mean)(w), rtol=1e-6)
  np.testing.assert_allclose(aux.loss, mean(w), rtol=1e-6)
  outputs = jax.tree.map(lambda z: z.at[2].set(jnp.nan), outputs_fn(w))
  objective = fs.pseudo_loss(
    lambda z, y, where: jax.tree.map(
      lambda d: jnp.where(where > 0, d, 0), signal(outputs_fn(w), y, where)
    )
  )
  value, direction = jax.value_and_grad(objective)(outputs, labels, where=where)
  assert jnp.isfinite(value)
  expected = signal(outputs_fn(w), labels, where)
  for name in expected:
    np.testing.assert_allclose(direction[name], expected[name], rtol=1e-6)
