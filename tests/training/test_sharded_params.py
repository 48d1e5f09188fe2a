"""Parameters divided over "fsdp" and "model": one device's answer in parts."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from meshes import collective_bytes

import forgetsam as fs
from forgetsam.training._placed_step import gathering

KEY = jax.random.key(42)
LOSS = fs.sigmoid_cross_entropy()
IMAGE = (8, 8, 1)
AXES = ("data", "fsdp", "model")
TENSOR_PARALLEL = {
  "mlp": (("Dense_0/kernel", PartitionSpec(None, "model")),),
  "vit": (
    (".*/(query|key|value)/kernel", PartitionSpec(None, "model")),
    (".*/out/kernel", PartitionSpec("model")),
    (".*/mlp1/kernel", PartitionSpec(None, "model")),
    (".*/mlp2/kernel", PartitionSpec("model")),
  ),
}
WIDE_RULES = (
  ("Dense_0/kernel", PartitionSpec(None, "model")),
  ("Dense_1/kernel", PartitionSpec("model")),
)
MODELS = {
  "plain mlp": ("mlp", {"hidden": (32,)}),
  "wide mlp": ("mlp", {"hidden": (512, 512)}),
  "mlp": ("mlp", {"hidden": (32,), "dropout": 0.2}),
  "vit": ("vit_tiny", {"depth": 1, "width": 16, "dropout": 0.2}),
  "cnn": ("cnn", {"widths": (8,), "batch_norm": True}),
}
OBF = fs.output_bias_forgetting()
METHODS = {
  "plain": {},
  "sam": {"perturb": fs.perturbed_gradient(fs.sam(0.3))},
  "asam": {"perturb": fs.perturbed_gradient(fs.asam(0.3, eta=0.01))},
  "random": {"perturb": fs.perturbed_gradient(fs.random_perturbation(0.3, 5))},
  "gsam": {
    "perturb": fs.perturbed_gradient(fs.sam(0.3), fs.surrogate_gap(0.2))
  },
  "obf": {"perturb": fs.perturbed_gradient(fs.sam(0.3)), "ascent": OBF},
}
SHAPES = [(8,), (2, 4), (4, 2), (1, 8), (2, 2, 2)]
FEW = [
  ("mlp", "random", (1, 8)),
  ("cnn", "gsam", (4, 2)),
  pytest.param("mlp", "sam", (2, 4), marks=pytest.mark.long),
  pytest.param("vit", "plain", (2, 2, 2), marks=pytest.mark.long),
]


@pytest.fixture(autouse=True)
def _loops_are_short_to_compile(monkeypatch):
  monkeypatch.setattr("forgetsam.training._micro_batches.MOST_UNROLLED", 1)


def mesh_of(shape, axes=AXES):
  if jax.device_count() < 8:
    pytest.skip("needs 8 devices")
  return jax.make_mesh(
    shape, axes[: len(shape)], axis_types=(AxisType.Auto,) * len(shape)
  )


def batch_of(size):
  image = jax.random.normal(jax.random.key(1), (size, *IMAGE))
  return {"image": image, "label": jnp.arange(size) % 3}


@functools.cache
def model_of(name):
  base, options = MODELS[name]
  module = fs.models.create(base, num_classes=3, **options)
  return module, *fs.models.initialise(module, jax.random.key(0), IMAGE)


def make_run(model, method, mesh, *, optimizer=None, rules=(), **options):
  """Step and first state of a run; the parameters lie as the rules say."""
  module, params, model_state = model_of(model)
  optimizer = optimizer or optax.sgd(0.5)
  arguments = METHODS[method]
  step = fs.make_train_step(
    fs.models.forward(module),
    loss=LOSS,
    optimizer=optimizer,
    mesh=mesh,
    **{"micro_batch_size": 8, **arguments, **options},
  )
  shardings = fs.param_shardings(params, mesh, rules) if rules else None
  state = fs.create_train_state(
    params,
    model_state,
    optimizer,
    arguments.get("perturb"),
    mesh,
    shardings=shardings,
  )
  return step, state


def train(*arguments, size=64, steps=3, **options):
  step, state = make_run(*arguments, **options)
  for _ in range(steps):
    state, metrics = step(state, batch_of(size), KEY)
  return jax.device_get((state.params, metrics, state.model_state))


@functools.cache
def on_one_device(model, method):
  return train(model, method, None)


def assert_equal_in(relative, actual, expected):
  for x, y in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
    # A key's biases have no gradient, and stay at rounding's 1e-10.
    atol = relative * max(np.abs(y).max(), 1e-3)
    np.testing.assert_allclose(x, y, rtol=0, atol=atol)


def compare(model, method, shape):
  mesh = mesh_of(shape)
  rules = TENSOR_PARALLEL.get(model, ()) if "model" in mesh.shape else ()
  expected = on_one_device(model, method)
  actual = train(model, method, mesh, rules=rules)
  assert_equal_in(2e-6, actual[0], expected[0])
  for name, value in expected[1].items():
    assert actual[1][name] == pytest.approx(value, rel=1e-4), name
  if mesh.shape["data"] == 1:
    assert_equal_in(1e-5, actual[2], expected[2])


@pytest.mark.parametrize(("model", "method", "shape"), FEW)
def test_every_mesh_agrees_with_one_device(model, method, shape):
  compare(model, method, shape)


def test_m_sharpness_is_that_of_a_loop_over_groups():
  """Micro-batches of 8, four for each of two groups, on four devices each."""
  module, params, _ = model_of("plain mlp")
  forward, batch = fs.models.forward(module), batch_of(64)

  def loss(params, i):
    images, labels = (x.reshape(8, 8, *x.shape[1:])[i] for x in batch.values())
    logits, _ = forward(params, {}, images, train=True, key=None)
    return LOSS(logits, labels)

  gradient = jax.jit(jax.grad(loss))
  grads = []
  for i in range(8):
    ascent = gradient(params, i)
    scale = 0.3 / optax.tree.norm(ascent)
    moved = jax.tree.map(lambda w, g, s=scale: w + s * g, params, ascent)
    grads.append(gradient(moved, i))
  expected = jax.tree.map(
    lambda w, *g: w - 0.5 * sum(g) / 8, jax.device_get(params), *grads
  )
  actual, metrics, _ = train("plain mlp", "sam", mesh_of((2, 4)), steps=1)
  assert_equal_in(2e-6, actual, expected)
  assert metrics["perturbation_norm"] == pytest.approx(0.3, rel=1e-5)


def bytes_on_a_device(tree):
  return sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))


def test_a_device_holds_its_part_of_everything_like_parameters():
  def update_fn(updates, state, params=None):  # of which XLA knows no place
    return updates, jax.tree.map(lambda w: jnp.flip(w) * 2, params)

  optimizer = optax.chain(
    optax.adamw(1e-2),
    fs.params_ema(0.9),
    optax.GradientTransformation(lambda params: params, update_fn),
  )
  mesh = mesh_of((2, 4))
  step, state = make_run("mlp", "sam", mesh, optimizer=optimizer)
  before = jax.tree.map(lambda x: x.sharding, state)
  program = step.lower(state, batch_of(64), KEY).compile()
  state, _ = step(state, batch_of(64), KEY)
  whole = sum(x.nbytes for x in jax.tree.leaves(model_of("mlp")[1]))
  left = 4 * 3 * 3 // 4  # the head's three biases, which four do not divide
  assert bytes_on_a_device(state.params) == whole // 4 + left
  scalars = 24  # counts, and what the perturbation keeps
  assert bytes_on_a_device(state) <= 5 * (whole // 4 + left) + scalars
  images = 4 * 8 * 65  # a device's images and labels
  arguments = program.memory_analysis().argument_size_in_bytes
  assert arguments <= bytes_on_a_device(state) + images + 32  # and the key
  assert jax.tree.map(lambda x: x.sharding, state) == before
  state, _ = step(state, batch_of(64), KEY)
  assert step._cache_size() == 1  # it comes back as it was placed


def counts_of(hlo):
  names = ("all-gather", "reduce-scatter", "all-to-all", "collective-permute")
  return [len(re.findall(rf" {name}(?:-start)?\(", hlo)) for name in names]


def test_each_pass_gathers_a_parameter_once_and_moves_no_activations(
  monkeypatch,
):
  monkeypatch.setattr("forgetsam.training._micro_batches.MOST_UNROLLED", 16)
  step, state = make_run("plain mlp", "sam", mesh_of((2, 4)))
  hlo = step.lower(state, batch_of(64), KEY).compile().as_text()
  arrays = len(jax.tree.leaves(state.params))
  divided = arrays - 1  # all but the head's biases
  # Of two passes of four micro-batches; images and labels, all at once, go to
  # their devices.
  assert counts_of(hlo) == [2 * 4 * divided, 0, 2, 0]
  numbers = sum(x.size for x in jax.tree.leaves(state.params) if x.size != 3)
  assert collective_bytes(hlo)["all-gather"] == 2 * 4 * 4 * numbers


def test_accelerators_gather_again_for_the_backward_pass(monkeypatch):
  monkeypatch.setattr(
    "forgetsam.training._placed_step._gathers_again", lambda mesh: True
  )
  step, state = make_run("mlp", "sam", mesh_of((2, 4)))
  shardings = jax.tree.map(lambda x: x.sharding, state.params)
  forward = fs.models.forward(model_of("mlp")[0])
  model = gathering(forward, shardings, mesh_of((2, 4)))
  images = batch_of(64)["image"]
  _, pullback = jax.vjp(
    lambda params: model(params, {}, images, train=True, key=KEY)[0],
    state.params,
  )
  kernel = state.params["Head_0"]["dense"]["kernel"]
  kept = [x for x in jax.tree.leaves(pullback) if x.shape == kernel.shape]
  assert kept
  assert not any(x.sharding.is_fully_replicated for x in kept)
  for _ in range(3):
    state, _ = step(state, batch_of(64), KEY)
  expected = on_one_device("mlp", "sam")[0]
  assert_equal_in(2e-6, jax.device_get(state.params), expected)


def test_part_of_a_micro_batch_may_be_masked_or_ascended_alone():
  batch = batch_of(64) | {"mask": jnp.arange(64) % 3 != 0}
  results = []
  for mesh in (None, mesh_of((2, 4))):
    step, state = make_run("plain mlp", "obf", mesh, ascent_fraction=0.5)
    state, metrics = step(state, batch, KEY)
    results.append(jax.device_get((state.params, metrics)))
  assert_equal_in(2e-6, results[1][0], results[0][0])
  for name, value in results[0][1].items():
    assert results[1][1][name] == pytest.approx(value, rel=1e-4), name


def operations(step, state, size):
  program = step.lower(state, batch_of(size), KEY).compile()
  return program.cost_analysis()["flops"]


@pytest.mark.parametrize(
  "shape", [(2, 4), pytest.param((2, 2, 2), marks=pytest.mark.long)]
)
def test_devices_share_the_operations(shape, monkeypatch):
  monkeypatch.setattr("forgetsam.training._micro_batches.MOST_UNROLLED", 16)
  mesh = mesh_of(shape)
  rules = WIDE_RULES if "model" in mesh.shape else ()
  options = {"micro_batch_size": 256}
  alone = operations(*make_run("wide mlp", "sam", None, **options), 512)
  step, state = make_run("wide mlp", "sam", mesh, rules=rules, **options)
  assert operations(step, state, 512) <= 1.05 * alone / 8


def test_what_does_not_divide_is_refused_by_name():
  mesh = mesh_of((2, 4))
  step, state = make_run("mlp", "sam", mesh, micro_batch_size=2)
  with pytest.raises(ValueError, match=r'micro_batch_size=2 .*4.*"fsdp"'):
    step.lower(state, batch_of(64), KEY)
  with pytest.raises(ValueError, match="8 devices must divide the batch of 12"):
    step(state, batch_of(12), KEY)


def test_batches_lie_anywhere_and_steps_run_inside_of_others():
  mesh = mesh_of((2, 4))
  step, state = make_run("plain mlp", "sam", mesh)

  def loss_of(function, batch):
    copies = jax.tree.map(jnp.copy, state)
    return float(function(copies, batch, KEY)[1]["loss"])

  batch = batch_of(64)
  expected = loss_of(step, batch)
  for spec in (PartitionSpec(), PartitionSpec("data")):
    placed = jax.device_put(batch, NamedSharding(mesh, spec))
    assert loss_of(step, placed) == pytest.approx(expected, rel=1e-6)
  assert loss_of(jax.jit(step), batch) == pytest.approx(expected, rel=1e-6)


REFUSED = {
  "a pair": [("kernel", "model")],
  "matches none of .*Dense_0/kernel": [("Conv_.*", PartitionSpec("model"))],
  "'tensor', no axis of": [(".*/kernel", PartitionSpec("tensor"))],
  "twice": [(".*/kernel", PartitionSpec("model", "model"))],
  "more axes than": [(".*/bias", PartitionSpec(None, "model"))],
  r"2 devices must divide 3 of \(32, 3\)": [
    ("Head_0/dense/kernel", PartitionSpec(None, "model"))
  ],
}


@pytest.mark.parametrize("match", REFUSED)
def test_rules_that_do_not_fit_are_refused(match):
  with pytest.raises(ValueError, match=match):
    fs.param_shardings(model_of("mlp")[1], mesh_of((2, 2, 2)), REFUSED[match])


def test_shardings_that_do_not_fit_are_refused():
  params, optimizer = {"w": jnp.ones((6, 2))}, optax.sgd(0.1)
  mesh = mesh_of((2, 4))
  for shardings, match in [
    ({}, "a tree like params"),
    ({"w": "fsdp"}, "'fsdp': it must be a NamedSharding"),
    ({"w": PartitionSpec("fsdp")}, "shardings.*w.*4 devices must divide 6"),
    ({"w": NamedSharding(mesh_of((8,)), PartitionSpec())}, "another mesh"),
  ]:
    with pytest.raises(ValueError, match=match):
      fs.create_train_state(
        params, {}, optimizer, None, mesh, shardings=shardings
      )
  with pytest.raises(ValueError, match="shardings are given"):
    fs.create_train_state(
      params, {}, optimizer, shardings={"w": PartitionSpec()}
    )
  with pytest.raises(ValueError, match=r"'fsdp'.*it must have the axis 'data'"):
    fs.param_shardings(params, mesh_of((8,), ("fsdp",)))


def test_the_optimizers_arrays_lie_as_the_parameters_given():
  params, mesh = {"w": jnp.ones((8, 16))}, mesh_of((2, 4))
  perturb = fs.perturbed_gradient(fs.friendly_sam(0.1))
  for at in (PartitionSpec("fsdp"), PartitionSpec()):

    def create(params, at=at):
      return fs.create_train_state(
        params, {}, optax.adam(0.1), perturb, mesh, shardings={"w": at}
      )

    state = (jax.jit(create) if at else create)(params)
    large = [x for x in jax.tree.leaves(state) if x.ndim]
    assert len(large) == 4
    assert all(x.sharding.spec == at for x in large)


def test_small_arrays_may_stay_whole():
  params = {"w": jnp.ones((4, 8)), "b": jnp.ones(8)}
  found = fs.param_shardings(params, mesh_of((2, 4)), smallest=16)
  assert {k: v.spec for k, v in found.items()} == {
    "w": PartitionSpec(None, "fsdp"),
    "b": PartitionSpec(),
  }


class Partitioned(nn.Module):
  """A perceptron that names its axes, by Linen's logical names."""

  @nn.compact
  def __call__(self, images, train=False):
    x = images.reshape(len(images), -1)
    init = nn.initializers.lecun_normal()
    for width, names in ((16, ("in", "hidden")), (3, ("hidden", None))):
      kernel = nn.with_logical_partitioning(init, names)
      x = nn.Dense(width, kernel_init=kernel)(jnp.tanh(x))
    return x


def test_linens_partitioning_metadata_is_honoured():
  module, mesh = Partitioned(), mesh_of((2, 2, 2))
  variables = module.init(jax.random.key(0), jnp.zeros((1, *IMAGE)))
  boxed, perturb = variables["params"], METHODS["sam"]["perturb"]
  optimizer = optax.sgd(0.5)
  results = []
  for where in (None, mesh):
    with nn.logical_axis_rules((("hidden", "model"), ("in", "elsewhere"))):
      state = fs.create_train_state(
        boxed if where else nn.unbox(boxed), {}, optimizer, perturb, where
      )
    step = fs.make_train_step(
      fs.models.forward(module),
      loss=LOSS,
      optimizer=optimizer,
      perturb=perturb,
      micro_batch_size=8,
      mesh=where,
    )
    if where:
      specs = [x.sharding.spec for x in jax.tree.leaves(state.params)]
      assert specs[1] == PartitionSpec("fsdp", "model")
      assert specs[3] == PartitionSpec("model", None)
    state, _ = step(state, batch_of(64), KEY)
    results.append(jax.device_get(state.params))
  assert_equal_in(2e-6, *results)


def test_nnx_variables_say_where_they_lie():
  init = nnx.with_partitioning(nnx.initializers.ones, (None, "model"))
  mesh = mesh_of((2, 2, 2))
  with jax.set_mesh(mesh):
    model = nnx.Linear(4, 6, kernel_init=init, rngs=nnx.Rngs(0))
  found = fs.param_shardings(nnx.state(model, nnx.Param), mesh)
  specs = {x.spec for x in jax.tree.leaves(found)}
  assert PartitionSpec("fsdp", "model") in specs


def test_states_of_other_shapes_are_divided_by_size():
  params, mesh = {"w": jnp.ones((8, 6))}, mesh_of((2, 4))
  optimizer = optax.lbfgs(0.1, memory_size=3, linesearch=None)
  state = fs.create_train_state(params, {}, optimizer, None, mesh)
  whole = sum(x.nbytes for x in jax.tree.leaves(state.opt_state))
  assert bytes_on_a_device(state.opt_state) < 0.3 * whole


def test_scores_are_those_of_one_device():
  module, params, _ = model_of("mlp")
  forward = fs.models.forward(module)
  batch = batch_of(64) | {"mask": jnp.arange(64) % 5 != 0}
  mesh = mesh_of((2, 2, 2))
  placed = jax.device_put(
    params, fs.param_shardings(params, mesh, TENSOR_PARALLEL["mlp"])
  )
  expected = fs.make_eval_step(forward)(params, {}, batch)
  actual = fs.make_eval_step(forward, mesh=mesh)(placed, {}, batch)
  for name, value in expected.items():
    np.testing.assert_allclose(actual[name], value, rtol=1e-5, err_msg=name)


def test_the_optimizers_state_may_be_divided_over_all_devices():
  mesh, optimizer = mesh_of((2, 4)), optax.adamw(1e-2)
  step, state = make_run("plain mlp", "plain", mesh, optimizer=optimizer)
  params, perturb = state.params, None
  results = []
  for shard in (False, True):
    step = fs.make_train_step(
      fs.models.forward(model_of("plain mlp")[0]),
      loss=LOSS,
      optimizer=optimizer,
      micro_batch_size=8,
      mesh=mesh,
      shard_opt_state=shard,
    )
    state = fs.create_train_state(
      params, {}, optimizer, perturb, mesh, shard_opt_state=shard
    )
    state, _ = step(state, batch_of(64), KEY)
    results.append(state)
  whole, parts = (bytes_on_a_device(x.opt_state) for x in results)
  assert parts < 0.55 * whole
  assert_equal_in(1e-5, *(jax.device_get(x.params) for x in results))


@pytest.mark.long
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", ["mlp", "vit", "cnn"])
def test_all_methods_and_models_agree_on_all_meshes(model, method, shape):
  compare(model, method, shape)
