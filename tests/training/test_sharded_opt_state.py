"""ZeRO-1: a part of the optimizer's state on each device, the same result."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from meshes import data_mesh

import forgetsam as fs
from forgetsam.experiment.run import Checkpoints

DEVICES = 8
BATCH = {
  "image": jax.random.normal(jax.random.key(1), (16, 8, 8, 1)),
  "label": jnp.arange(16) % 3,
}
OPTIMIZERS = {
  "adamw": lambda: optax.chain(
    optax.clip_by_global_norm(0.1), optax.adamw(1e-3)
  ),
  "sgdw": lambda: optax.chain(
    fs.sgdw(0.1), fs.shrink_and_perturb(0.1), fs.params_ema(0.9)
  ),
}


def make_run(optimizer, *, shard, perturbation=None):
  module = fs.models.create("mlp", num_classes=3, hidden=(64, 32))
  params, model_state = fs.models.initialise(
    module, jax.random.key(0), (8, 8, 1)
  )
  mesh = data_mesh(DEVICES)
  perturb = fs.perturbed_gradient(perturbation or fs.sam(0.1))
  step = fs.make_train_step(
    fs.models.forward(module),
    loss=fs.softmax_cross_entropy(),
    optimizer=optimizer,
    perturb=perturb,
    mesh=mesh,
    shard_opt_state=shard,
  )
  state = fs.create_train_state(
    params, model_state, optimizer, perturb, mesh, shard_opt_state=shard
  )
  return step, state


def bytes_of(tree, on_device=False):
  shapes = [
    x.sharding.shard_shape(x.shape) if on_device else x.shape
    for x in jax.tree.leaves(tree)
  ]
  dtypes = [x.dtype.itemsize for x in jax.tree.leaves(tree)]
  return sum(
    int(np.prod(shape)) * size
    for shape, size in zip(shapes, dtypes, strict=True)
  )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_same_parameters_for_a_part_of_the_memory(name):
  results, arguments, states = {}, {}, {}
  for shard in (False, True):
    step, state = make_run(OPTIMIZERS[name](), shard=shard)
    compiled = step.lower(state, BATCH, jax.random.key(0)).compile()
    arguments[shard] = compiled.memory_analysis().argument_size_in_bytes
    for _ in range(3):
      state, metrics = step(state, BATCH, jax.random.key(0))
    results[shard] = jax.device_get((state.params, metrics))
    states[shard] = state
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
    results[False],
    results[True],
  )
  # What a device no longer holds is seven eighths of the state, but for what
  # eight does not divide: counts, and the head's three biases.
  whole = bytes_of(states[False].opt_state)
  part = bytes_of(states[True].opt_state, on_device=True)
  assert arguments[False] - arguments[True] == whole - part
  assert part < 1.1 * whole / DEVICES
  assert step._cache_size() == 1  # the state comes back as it was placed


def test_the_parts_stay_parts_whatever_the_optimizer_keeps():
  """A state that is all of the parameters, which every device has whole."""

  def update_fn(updates, state, params=None):
    del state
    return updates, jax.tree.map(lambda w: jnp.flip(w) * 2, params)

  last = optax.GradientTransformation(lambda w: w, update_fn)
  step, state = make_run(optax.chain(optax.sgd(0.1), last), shard=True)
  before = [x.sharding for x in jax.tree.leaves(state.opt_state)]
  for _ in range(2):
    state, _ = step(state, BATCH, jax.random.key(0))
  assert [x.sharding for x in jax.tree.leaves(state.opt_state)] == before
  assert step._cache_size() == 1


def test_one_all_reduce_and_the_parameters_gathered():
  step, state = make_run(optax.adamw(1e-3), shard=True)
  text = step.lower(state, BATCH, jax.random.key(0)).compile().as_text()
  assert len(re.findall(r" all-reduce(?:-start)?\(", text)) == 1
  gathered = re.findall(r"= (\S+) all-gather(?:-start)?\(", text)
  assert 1 <= len(gathered) <= len(jax.tree.leaves(state.params))
  assert not re.findall(r" (?:all-to-all|collective-permute)\(", text)


def test_a_perturbation_may_read_the_optimizers_state():
  results = []
  for shard in (False, True):
    step, state = make_run(
      fs.sgdw(0.1), shard=shard, perturbation=fs.momentum_ascent(0.5)
    )
    for _ in range(3):
      state, metrics = step(state, BATCH, jax.random.key(0))
    results.append(jax.device_get((state.params, metrics)))
  assert results[0][1]["perturbation_norm"] == pytest.approx(0.5, rel=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
    *results,
  )


def test_a_checkpoint_comes_back_in_parts(tmp_path):
  step, state = make_run(optax.adamw(1e-3), shard=True)
  state, _ = step(state, BATCH, jax.random.key(0))
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(state, {})
    checkpoints.wait()
    restored, _ = checkpoints.restore_latest(state)
  for x, y in zip(
    jax.tree.leaves(state.opt_state),
    jax.tree.leaves(restored.opt_state),
    strict=True,
  ):
    assert x.sharding == y.sharding
    np.testing.assert_array_equal(x, y)


def test_there_must_be_a_mesh():
  optimizer = optax.sgd(0.1)
  with pytest.raises(ValueError, match="without mesh"):
    fs.create_train_state({}, {}, optimizer, shard_opt_state=True)
  with pytest.raises(ValueError, match="without mesh"):
    fs.make_train_step(
      lambda *a, **k: None,
      loss=fs.softmax_cross_entropy(),
      optimizer=optimizer,
      shard_opt_state=True,
    )
