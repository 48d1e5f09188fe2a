"""The same answer on any number of devices, for one collective a step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from meshes import collective_bytes, data_mesh

import forgetsam as fs

LOSS = fs.softmax_cross_entropy()
KEY = jax.random.key(42)


def batch_of(size, shape=(6, 6, 1)):
  return {
    "image": jax.random.normal(jax.random.key(1), (size, *shape)),
    "label": jnp.arange(size) % 3,
  }


def make_run(module, perturb, *, devices, optimizer=None, micro_batch_size=2):
  """Step, first state and images' shape of a run on some devices."""
  optimizer = optimizer or optax.sgd(0.5)
  mesh = None if devices is None else data_mesh(devices)
  params, model_state = fs.models.initialise(
    module, jax.random.key(0), (6, 6, 1)
  )
  step = fs.make_train_step(
    fs.models.forward(module),
    loss=LOSS,
    optimizer=optimizer,
    ascent=None if perturb is None else fs.output_bias_forgetting(),
    perturb=perturb,
    micro_batch_size=micro_batch_size,
    mesh=mesh,
  )
  state = fs.create_train_state(params, model_state, optimizer, perturb, mesh)
  return step, state


PERTURBS = {
  "plain": None,
  "sam": fs.perturbed_gradient(fs.sam(0.3)),
  "gsam": fs.perturbed_gradient(fs.sam(0.3), fs.surrogate_gap(0.2)),
  "asam": fs.perturbed_gradient(fs.asam(0.3, eta=0.01)),
  "random": fs.perturbed_gradient(fs.random_perturbation(0.3, seed=5)),
  "table": fs.perturbed_gradient(fs.random_perturbation(0.3, 5, "table")),
}


@pytest.mark.parametrize("name", PERTURBS)
def test_1_2_4_and_8_devices_agree(name, monkeypatch):
  """With dropout and random perturbations; loops where they are long."""
  monkeypatch.setattr("forgetsam.training._micro_batches.MOST_UNROLLED", 2)
  module = fs.models.create("mlp", num_classes=3, hidden=(4,), dropout=0.5)
  counts = [n for n in (1, 2, 4, 8) if n <= jax.device_count()]
  runs = {}
  at_most = name in ("gsam", "asam", "table")
  for devices in (None, *counts[-1 if at_most else 0 :]):
    step, state = make_run(
      module, PERTURBS[name], devices=devices, micro_batch_size=1
    )
    for _ in range(2):
      state, metrics = step(state, batch_of(8), KEY)
    runs[devices] = jax.device_get((state.params, metrics))
  for devices in runs:
    assert_close(runs[devices], runs[None])


def test_a_gelu_on_all_devices_agrees_with_one():
  """The exact one: `lax.erf` inside `shard_map` is broken in jax 0.12.0."""
  weights = jax.random.normal(jax.random.key(2), (36, 3))

  def forward(params, model_state, images, *, train, key):
    x = images.reshape(len(images), -1) @ params
    return jax.nn.gelu(x, approximate=False), model_state

  perturb, optimizer = PERTURBS["sam"], optax.sgd(0.5)
  results = []
  for mesh in (None, data_mesh()):
    step = fs.make_train_step(
      forward,
      loss=LOSS,
      optimizer=optimizer,
      ascent=fs.output_bias_forgetting(),
      perturb=perturb,
      micro_batch_size=1,
      mesh=mesh,
    )
    state = fs.create_train_state(weights, {}, optimizer, perturb, mesh)
    state, metrics = step(state, batch_of(8), KEY)
    results.append(jax.device_get((state.params, metrics)))
  assert_close(*results)


def assert_close(actual, expected):
  for x, y in zip(
    jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6)


def test_without_a_micro_batch_size_the_devices_share_is_the_micro_batch():
  module = fs.models.create("mlp", num_classes=3, hidden=(4,))
  results = []
  for devices, size in ((2, None), (None, 8)):
    step, state = make_run(
      module, PERTURBS["sam"], devices=devices, micro_batch_size=size
    )
    state, _ = step(state, batch_of(16), KEY)
    results.append(jax.device_get(state.params))
  assert_close(*results)


def test_running_statistics_are_the_mean_of_a_loop_per_device():
  module = fs.models.create("cnn", num_classes=3, widths=(4,), batch_norm=True)
  forward = fs.models.forward(module)
  batch = batch_of(16)
  step, start = make_run(module, PERTURBS["sam"], devices=4)
  first = jax.device_get((start.params, start.model_state))
  state, _ = step(start, batch, KEY)
  params, per_device = first[0], []
  for device in range(4):
    model_state = first[1]
    for i in range(2):
      begin = 4 * device + 2 * i
      _, model_state = forward(
        params,
        model_state,
        batch["image"][begin : begin + 2],
        train=True,
        key=KEY,
      )
    per_device.append(model_state)
  mean = jax.tree.map(lambda *x: sum(x) / 4, *per_device)
  assert jax.tree.structure(mean) == jax.tree.structure(state.model_state)
  for x, y in zip(
    jax.tree.leaves(state.model_state), jax.tree.leaves(mean), strict=True
  ):
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["plain", "sam", "table"])
def test_one_collective_carries_gradients_statistics_and_metrics(name):
  module = fs.models.create("cnn", num_classes=3, widths=(4,), batch_norm=True)
  step, state = make_run(module, PERTURBS[name], devices=8)
  _, metrics = jax.eval_shape(step, state, batch_of(16), KEY)
  hlo = step.lower(state, batch_of(16), KEY).compile().as_text()
  numbers = sum(
    x.size for x in jax.tree.leaves((state.params, state.model_state))
  )
  numbers += len(metrics) - 2  # grad_norm and skipped come after the average
  assert collective_bytes(hlo) == {"all-reduce": 4 * numbers}


def test_collectives_are_counted():
  mesh = data_mesh(8)
  spec = jax.sharding.PartitionSpec("data")
  mean = jax.jit(
    jax.shard_map(
      lambda x: jax.lax.pmean(x, "data"),
      mesh=mesh,
      in_specs=spec,
      out_specs=jax.sharding.PartitionSpec(),
    )
  )
  hlo = mean.lower(jnp.ones((80, 3))).compile().as_text()
  assert collective_bytes(hlo) == {"all-reduce": 4 * 30}


@pytest.mark.parametrize(
  ("model", "name"),
  [("mlp", "sam"), ("mlp", "asam"), ("mlp", "random"), ("cnn", "sam")],
)
def test_rho_zero_is_plain_training_bit_for_bit(model, name):
  options = {"hidden": (8,)} if model == "mlp" else {"widths": (4,)}
  module = fs.models.create(model, num_classes=3, **options)
  perturbation = {
    "sam": fs.sam(0.0),
    "asam": fs.asam(0.0),
    "random": fs.random_perturbation(0.0, 0),
  }[name]
  results = []
  for perturb in (None, fs.perturbed_gradient(perturbation)):
    step, state = make_run(
      module,
      perturb,
      devices=None,
      optimizer=optax.adam(1e-2),
      micro_batch_size=4,
    )
    for _ in range(2):
      state, _ = step(state, batch_of(8), KEY)
    results.append((state.params, state.model_state, state.opt_state))
  for x, y in zip(*map(jax.tree.leaves, results), strict=True):
    np.testing.assert_array_equal(x, y)
