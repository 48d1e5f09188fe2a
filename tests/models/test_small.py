"""The MLP and the CNN against their formulas in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from forgetsam import models

ACTIVATIONS = {
  "gelu": lambda x: x * special.ndtr(x),
  "relu": lambda x: np.maximum(x, 0.0),
  "tanh": np.tanh,
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mlp(random_variables, activation):
  module = models.create("mlp", 3, hidden=(6, 5), activation=activation)
  params = random_variables(module, (2, 3, 2))["params"]
  images = np.random.default_rng(1).normal(size=(4, 2, 3, 2)).astype("float32")

  x = images.reshape(4, 12).astype(np.float64)
  for layer in ("Dense_0", "Dense_1"):
    x = x @ params[layer]["kernel"] + params[layer]["bias"]
    x = ACTIVATIONS[activation](x)
  head = params["Head_0"]["dense"]
  expected = x @ head["kernel"] + head["bias"]

  logits = module.apply({"params": params}, images, train=False)
  np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_mlp_has_exact_gelu_by_default():
  assert models.create("mlp", 3).activation == "gelu"


def test_cnn(random_variables):
  module = models.create("cnn", 3, widths=(4,), batch_norm=False)
  params = random_variables(module, (6, 8, 2))["params"]
  images = np.random.default_rng(1).normal(size=(2, 6, 8, 2)).astype("float32")

  padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
  kernel, bias = params["Conv_0"]["kernel"], params["Conv_0"]["bias"]
  x = np.zeros((2, 3, 4, 4))
  for row in range(3):
    for column in range(4):
      window = padded[:, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
      x[:, row, column] = np.einsum("bhwc,hwco->bo", window, kernel) + bias
  x = np.maximum(x, 0.0).mean((1, 2))
  head = params["Head_0"]["dense"]
  expected = x @ head["kernel"] + head["bias"]

  logits = module.apply({"params": params}, images, train=False)
  np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_cnn_normalises_before_the_activation(random_variables):
  module = models.create("cnn", 3, widths=(4,))
  variables = random_variables(module, (4, 4, 1))
  # A scale of 0 and a bias of -1 leave nothing after the activation; if it
  # came first, -1 would reach the head.
  norm = {"scale": jnp.zeros(4), "bias": -jnp.ones(4)}
  variables["params"]["BatchNorm_0"] = norm
  logits = module.apply(variables, np.ones((1, 4, 4, 1), "float32"))
  bias = variables["params"]["Head_0"]["dense"]["bias"]
  np.testing.assert_array_equal(logits[0], bias)


def test_cnn_kernels_are_drawn_for_relu():
  module = models.create("cnn", 3, widths=(64, 64))
  params, _ = models.initialise(module, jax.random.key(0), (8, 8, 1))
  std = np.std(params["Conv_1"]["kernel"])
  np.testing.assert_allclose(std, np.sqrt(2 / (9 * 64)), rtol=0.03)


def test_activations_are_bfloat16_when_the_computation_is(random_variables):
  module = models.create("cnn", 3, widths=(4, 4), dtype="bfloat16")
  variables = random_variables(module, (4, 4, 1))
  _, captured = jax.eval_shape(
    lambda images: module.apply(
      variables, images, capture_intermediates=True, mutable="intermediates"
    ),
    jax.ShapeDtypeStruct((1, 4, 4, 1), jnp.float32),
  )
  layers = captured["intermediates"]
  for name in ("Conv_0", "BatchNorm_0", "Conv_1", "BatchNorm_1"):
    assert layers[name]["__call__"][0].dtype == jnp.bfloat16
