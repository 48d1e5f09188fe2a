import jax.numpy as jnp
import numpy as np
import optax
import pytest

import forgetsam as fs


def test_rho_follows_the_learning_rate():
  lr = optax.join_schedules(
    [optax.linear_schedule(0.0, 1.0, 4), optax.linear_schedule(1.0, 0.2, 8)],
    [4],
  )
  rho = fs.lr_proportional_rho(lr, 0.5, 0.05, lr_max=1.0, lr_min=0.2)
  for count in range(13):
    expected = max(0.0, (float(lr(count)) - 0.2) / 0.8 * 0.45 + 0.05)
    np.testing.assert_allclose(rho(count), expected, rtol=1e-5, atol=1e-7)
  assert rho(0) == 0  # the warm-up starts below lr_min: the radius is cut at 0
  np.testing.assert_allclose(rho(4), 0.5, rtol=1e-6)
  np.testing.assert_allclose(rho(12), 0.05, rtol=1e-6)
  np.testing.assert_allclose(rho(jnp.int32(8)), rho(8), rtol=1e-6)


def test_a_constant_learning_rate_is_refused():
  with pytest.raises(ValueError, match=r"lr_max=0\.1 must differ from lr_min"):
    fs.lr_proportional_rho(lambda _: 0.1, 0.1, 0.0, lr_max=0.1, lr_min=0.1)
  lr = np.float32(0.1)
  with pytest.raises(
    ValueError, match=r"lr_max=0\.1.* must differ from lr_min"
  ):
    fs.lr_proportional_rho(lambda _: 0.1, 0.1, 0.0, lr_max=lr, lr_min=lr)
  with pytest.raises(ValueError, match="rho_max=-1"):
    fs.lr_proportional_rho(lambda _: 0.1, -1, 0.0, lr_max=0.1, lr_min=0.0)
