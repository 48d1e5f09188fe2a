"""`BatchNorm` against its formulas in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from forgetsam.models import BatchNorm


@pytest.fixture
def x():
  # A mean far from zero: E[x^2] - E[x]^2 would lose the variance in float32.
  rng = np.random.default_rng(0)
  scale = np.array([1.0, 0.1, 3.0])
  return (rng.normal(size=(4, 3, 2, 3)) * scale + 1000.0).astype(np.float32)


VARIABLES = {
  "params": {
    "scale": np.array([1.5, -1.0, 0.5], np.float32),
    "bias": np.array([0.0, 2.0, -1.0], np.float32),
  },
  "batch_stats": {
    "mean": np.array([990.0, 1000.0, 1010.0], np.float32),
    "var": np.array([2.0, 0.5, 4.0], np.float32),
  },
}


def _normalised(x, mean, var):
  params = VARIABLES["params"]
  y = (x - mean) / np.sqrt(var + 1e-5)
  return y * params["scale"] + params["bias"]


def test_training_uses_the_batch_and_records_the_unbiased_variance(x):
  y, updates = BatchNorm().apply(
    VARIABLES, x, use_running_average=False, mutable=["batch_stats"]
  )
  x = x.astype(np.float64)
  mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
  np.testing.assert_allclose(y, _normalised(x, mean, var), atol=2e-3)

  old, new = VARIABLES["batch_stats"], updates["batch_stats"]
  np.testing.assert_allclose(
    new["mean"], 0.9 * old["mean"] + 0.1 * mean, rtol=1e-6
  )
  # 24 values a channel: the biased variance is 4 % smaller.
  unbiased = x.var((0, 1, 2), ddof=1)
  np.testing.assert_allclose(
    new["var"], 0.9 * old["var"] + 0.1 * unbiased, rtol=1e-5
  )


def test_evaluation_uses_the_running_statistics_and_leaves_them(x):
  y, updates = BatchNorm().apply(
    VARIABLES, x, use_running_average=True, mutable=["batch_stats"]
  )
  stats = VARIABLES["batch_stats"]
  expected = _normalised(x.astype(np.float64), stats["mean"], stats["var"])
  np.testing.assert_allclose(y, expected, rtol=1e-4)
  np.testing.assert_array_equal(updates["batch_stats"]["mean"], stats["mean"])
  np.testing.assert_array_equal(updates["batch_stats"]["var"], stats["var"])


def test_initialisation_records_nothing(x):
  variables = BatchNorm().init(jax.random.key(0), x, use_running_average=False)
  np.testing.assert_array_equal(variables["batch_stats"]["mean"], np.zeros(3))
  np.testing.assert_array_equal(variables["batch_stats"]["var"], np.ones(3))
  np.testing.assert_array_equal(variables["params"]["scale"], np.ones(3))
  np.testing.assert_array_equal(variables["params"]["bias"], np.zeros(3))


def test_statistics_of_bfloat16_are_float32(x):
  # Sums of 24 values of 1000 in bfloat16 would be off by several units.
  x = jnp.asarray(x, jnp.bfloat16)
  y, updates = BatchNorm(dtype="bfloat16").apply(
    VARIABLES, x, use_running_average=False, mutable=["batch_stats"]
  )
  assert y.dtype == jnp.bfloat16
  new = updates["batch_stats"]["mean"]
  assert new.dtype == jnp.float32
  mean = np.asarray(x, np.float64).mean((0, 1, 2))
  old = VARIABLES["batch_stats"]["mean"]
  np.testing.assert_allclose(new, 0.9 * old + 0.1 * mean, rtol=1e-6)


def test_momentum_and_epsilon(x):
  y, updates = BatchNorm(momentum=0.5, epsilon=1.0).apply(
    VARIABLES, x, use_running_average=False, mutable=["batch_stats"]
  )
  x = x.astype(np.float64)
  old, params = VARIABLES["batch_stats"], VARIABLES["params"]
  mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
  np.testing.assert_allclose(
    updates["batch_stats"]["mean"], 0.5 * (old["mean"] + mean), rtol=1e-6
  )
  expected = (x - mean) / np.sqrt(var + 1.0) * params["scale"] + params["bias"]
  np.testing.assert_allclose(y, expected, atol=2e-3)


def test_one_value_a_channel_has_no_variance():
  with pytest.raises(ValueError, match=r"\(1, 1, 1, 3\).*micro_batch_size"):
    BatchNorm().apply(
      VARIABLES,
      jnp.ones((1, 1, 1, 3)),
      use_running_average=False,
      mutable=["batch_stats"],
    )
