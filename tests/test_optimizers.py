import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import forgetsam as fs


def test_sgdw_decouples_decay_from_momentum():
  params = {"w": jnp.array([2.0]), "b": jnp.array([3.0])}
  optimizer = fs.sgdw(0.1, 0.5, 0.01, mask={"w": True, "b": False})
  state = optimizer.init(params)
  w, v = {"w": 2.0, "b": 3.0}, {"w": 0.0, "b": 0.0}
  for t in range(3):
    grads = {"w": jnp.array([1.0 + t]), "b": jnp.array([2.0 - t])}
    updates, state = optimizer.update(grads, state, params)
    params = optax.apply_updates(params, updates)
    for k, decay in (("w", 0.01), ("b", 0.0)):
      v[k] = 0.5 * v[k] + float(grads[k][0])
      w[k] -= 0.1 * (v[k] + decay * w[k])
      np.testing.assert_allclose(params[k][0], w[k], rtol=1e-6)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [({"momentum": 1.0}, "momentum=1.0"), ({"weight_decay": -1}, "decay=-1")],
)
def test_sgdw_refuses_impossible_values(arguments, message):
  with pytest.raises(ValueError, match=message):
    fs.sgdw(0.1, **arguments)


def test_shrink_and_perturb_counts_this_update():
  optimizer = optax.chain(
    optax.sgd(1.0), fs.shrink_and_perturb(lambda n: 0.1 * n)
  )
  params = {"w": jnp.array(4.0)}
  state = optimizer.init(params)
  w = 4.0
  for n in (1, 2, 3):
    updates, state = optimizer.update({"w": jnp.array(0.5)}, state, params)
    params = optax.apply_updates(params, updates)
    w = 0.1 * n * 4.0 + (1 - 0.1 * n) * (w - 0.5)
    np.testing.assert_allclose(params["w"], w, rtol=1e-6)


def test_shrink_and_perturb_by_zero_changes_nothing():
  transform = fs.shrink_and_perturb(0.0)
  u = jax.random.normal(jax.random.key(0), (10,))
  w = jax.random.normal(jax.random.key(1), (10,))
  np.testing.assert_array_equal(transform.update(u, transform.init(w), w)[0], u)


def test_shrink_and_perturb_explains_what_it_needs():
  transform = fs.shrink_and_perturb(0.1)
  w = jnp.ones(2)
  with pytest.raises(ValueError, match="needs params"):
    transform.update(w, transform.init(w))
  with pytest.raises(ValueError, match="factor=2"):
    fs.shrink_and_perturb(2)
