"""Every way to a perturbed gradient, where JAX and optax are strict."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec
from meshes import data_mesh
from strict import strict_jax
from transforms_table import GRADIENTS, OF_REAL, init, names, step

X = jax.random.normal(jax.random.key(1), (8, 3))
PARAMS = {
  "w": jax.random.normal(jax.random.key(0), (3, 2)),
  "b": jnp.array([0.3, -0.2]),
}


def loss(params):
  z = X.astype(params["w"].dtype) @ params["w"] + params["b"]
  return jnp.mean(jnp.tanh(z) ** 2).astype(jnp.float32)


def types(tree):
  return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


@pytest.mark.parametrize("name", names(GRADIENTS))
def test_shapes_alone_give_the_state_of_arrays(name):
  transform = GRADIENTS[name](0.1)
  state = init(transform, jax.eval_shape(lambda: PARAMS))
  zeros = init(transform, jax.tree.map(jnp.zeros_like, PARAMS))
  assert types(state) == types(zeros)
  for x, y in zip(*map(jax.tree.leaves, (state, zeros)), strict=True):
    if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
      np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("name", names(GRADIENTS))
def test_params_that_vary_over_devices_with_a_state_that_does_not(name):
  mesh = data_mesh(2)
  transform = GRADIENTS[name](0.1)

  @partial(
    jax.shard_map,
    mesh=mesh,
    in_specs=(PartitionSpec("data"), PartitionSpec()),
    out_specs=PartitionSpec("data"),
  )
  def on_each_device(scale, states):
    params = jax.tree.map(lambda w: w * scale[0], PARAMS)
    (new_params, _) = step(transform, loss, params, states)
    return jax.tree.map(lambda w: w[None], new_params)

  states = init(transform, PARAMS)
  new_params = jax.eval_shape(on_each_device, jnp.ones(2), states)
  assert new_params["w"].shape == (2, 3, 2)


@pytest.mark.parametrize("name", names(GRADIENTS))
@pytest.mark.parametrize(
  "dtypes", [("float32", "float64"), ("bfloat16", "float32")]
)
def test_dtypes_are_stable_where_they_are_mixed(name, dtypes):
  with jax.enable_x64(dtypes[1] == "float64"):
    params = {
      "w": PARAMS["w"].astype(dtypes[0]),
      "b": jnp.asarray(PARAMS["b"], dtypes[1]),
    }
    transform = GRADIENTS[name](0.1)
    states = init(transform, params)
    after = jax.eval_shape(
      lambda p, s: jax.lax.scan(
        lambda carry, _: (step(transform, loss, *carry), None), (p, s), length=2
      )[0],
      params,
      states,
    )
  assert types(after) == types((params, states))


def strict_loss(params):
  terms = [jnp.mean(jnp.abs(x) ** 2) for x in jax.tree.leaves(params)]
  return sum(term.astype(jnp.float32) for term in terms)


@pytest.mark.parametrize("name", names(GRADIENTS))
@pytest.mark.parametrize(
  "dtypes", [("float32", "float32"), ("complex64", "float64")]
)
def test_ranks_and_dtypes_are_never_promoted(name, dtypes):
  if name in OF_REAL:
    dtypes = ("float32", dtypes[1])
  transform = GRADIENTS[name](optax.cosine_decay_schedule(0.1, 10))
  with jax.enable_x64(dtypes[1] == "float64"), strict_jax():
    params = {
      "w": PARAMS["w"].astype(dtypes[0]),
      "b": jnp.asarray(PARAMS["b"], dtypes[1]),
    }
    states = init(transform, params)
    after = jax.eval_shape(
      partial(step, transform, strict_loss), params, states
    )
  assert types(after) == types((params, states))
