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


def _averaged(decay, weights):
  """Averages along a path of weights, each reached from zero."""
  chain = optax.chain(optax.identity(), fs.params_ema(decay))
  state, found = chain.init(weights[0]), []
  for w in weights:
    updates, state = chain.update(w, state, jnp.zeros_like(w))
    np.testing.assert_array_equal(updates, w)
    found.append(fs.averaged_params(w, state))
  return found, state


@pytest.mark.parametrize("decay", [0.0, 0.6, 0.9999])
def test_params_ema_is_the_debiased_mean_of_the_weights_after_updates(decay):
  weights = [jnp.array([1.0, 2.0 * t**2]) for t in range(1, 6)]
  found, _ = _averaged(decay, weights)
  for t in range(1, 6):
    shares = np.float64(decay) ** np.arange(t)[::-1]
    expected = shares @ np.asarray(weights[:t]) / shares.sum()
    np.testing.assert_allclose(found[t - 1], expected, rtol=1e-6)


def test_params_ema_takes_a_traced_decay_and_finds_no_average_elsewhere():
  weights = [jnp.array([1.0]), jnp.array([4.0])]
  found = jax.vmap(lambda d: _averaged(d, weights)[0][-1])(
    jnp.array([0.5, 0.0])
  )
  np.testing.assert_allclose(found[:, 0], [3.0, 4.0], rtol=1e-6)
  state = optax.adamw(0.1).init(weights[0])
  assert fs.averaged_params(weights[0], state) is None


def test_params_ema_averages_low_precision_in_float32():
  weights = [jnp.full(2, w, jnp.bfloat16) for w in (256.0, 258.0)]
  found, state = _averaged(0.5, weights)
  average = optax.tree.get(state, "ParamsEmaState").average
  np.testing.assert_allclose(average, 772 / 3, rtol=1e-6)
  assert (average.dtype, found[-1].dtype) == (jnp.float32, jnp.bfloat16)


def test_params_ema_explains_what_it_needs():
  transform, w = fs.params_ema(0.5), jnp.ones(2)
  state = transform.init(w)
  with pytest.raises(ValueError, match="params_ema needs params"):
    transform.update(w, state)
  with pytest.raises(ValueError, match=r"decay=1 must be in \[0, 1\)"):
    fs.params_ema(1)
  with pytest.raises(ValueError, match="2 averages"):
    fs.averaged_params(w, (state, state))
