"""The training step against a slow loop, and what it promises."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from meshes import data_mesh

import forgetsam as fs

KEY = jax.random.key(42)
LOSS = fs.softmax_cross_entropy()


def small_params():
  return {
    "w": 0.5 * jax.random.normal(jax.random.key(0), (6, 4)),
    "b": jnp.linspace(-0.2, 0.2, 4),
  }


def forward(params, model_state, images, *, train, key):
  """A linear model with dropout, and a state that counts and averages."""
  if train:
    images = images * jax.random.bernoulli(key, 0.8, images.shape)
  logits = images @ params["w"] + params["b"]
  if train and model_state:
    model_state = {
      "mean": 0.5 * model_state["mean"] + 0.5 * jnp.mean(images),
      "count": model_state["count"] + 1,
    }
  return logits, model_state


def small_batch(size=16):
  images = jax.random.normal(jax.random.key(1), (size, 6))
  return {"image": images, "label": jnp.arange(size) % 4}


def small_state():
  return {"mean": jnp.zeros(()), "count": jnp.zeros((), jnp.int32)}


def make(*, model_state=None, optimizer=None, **arguments):
  optimizer = optimizer or optax.sgd(1.0)
  step = fs.make_train_step(
    forward, loss=LOSS, optimizer=optimizer, **arguments
  )
  state = fs.create_train_state(
    small_params(),
    {} if model_state is None else model_state,
    optimizer,
    arguments.get("perturb"),
    arguments.get("mesh"),
  )
  return step, state


def run(batch, *, steps=1, **arguments):
  step, state = make(**arguments)
  for _ in range(steps):
    state, metrics = step(state, batch, KEY)
  return state, metrics


def slow_gradient(batch, size, perturb, signal, step=0):
  """m-sharpness as one would write it by hand: a loop over slices."""
  params, count = small_params(), len(batch["label"]) // size
  gradients, losses, norms = [], [], []
  for i in range(count):
    images = batch["image"][i * size : (i + 1) * size]
    labels = batch["label"][i * size : (i + 1) * size]
    key = jax.random.fold_in(jax.random.fold_in(KEY, step), i)

    def logits_fn(p, images=images, key=key):
      return forward(p, {}, images, train=True, key=key)[0]

    ascent, grad_fn, aux = fs.ascent_and_descent(logits_fn, LOSS, signal)(
      params, labels
    )
    grads, _ = perturb.update(
      ascent, perturb.init(params), params, grad_fn=grad_fn, micro_batch=i
    )
    gradients.append(grads)
    losses.append(aux.loss)
    norms.append(optax.tree.norm(ascent))
  mean = jax.tree.map(lambda *x: sum(x) / count, *gradients)
  return mean, np.mean(losses), np.mean(norms)


PERTURBS = {
  "sam": fs.perturbed_gradient(fs.sam(0.5)),
  "gsam": fs.perturbed_gradient(fs.sam(0.5), fs.surrogate_gap(0.3)),
  "asam": fs.perturbed_gradient(fs.asam(0.5, eta=0.01)),
  "random": fs.perturbed_gradient(fs.random_perturbation(0.5, seed=3)),
}


def assert_close(actual, expected, **tolerance):
  for x, y in zip(
    jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(x, y, **(tolerance or {"atol": 2e-6}))


def assert_equal(actual, expected):
  for x, y in zip(
    jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("unrolled", [True, False])
@pytest.mark.parametrize("name", PERTURBS)
def test_m_sharpness_is_a_loop_over_consecutive_slices(
  name, unrolled, monkeypatch
):
  if not unrolled:
    monkeypatch.setattr("forgetsam.training._micro_batches.MOST_UNROLLED", 1)
  batch, perturb = small_batch(), PERTURBS[name]
  signal = fs.output_bias_forgetting()
  state, metrics = run(
    batch, ascent=signal, perturb=perturb, micro_batch_size=4
  )
  expected, loss, ascent_norm = slow_gradient(batch, 4, perturb, signal)
  moved = jax.tree.map(jnp.subtract, small_params(), expected)
  assert_close(state.params, moved)
  np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-6)
  np.testing.assert_allclose(
    metrics["grad_norm"], optax.tree.norm(expected), rtol=1e-5
  )
  if name in ("sam", "random"):
    np.testing.assert_allclose(metrics["perturbation_norm"], 0.5, rtol=1e-5)
  if name == "random":
    assert "ascent_grad_norm" not in metrics
  else:
    np.testing.assert_allclose(
      metrics["ascent_grad_norm"], ascent_norm, rtol=1e-5
    )


def test_a_perturb_without_ascent_ascends_the_loss():
  batch, perturb = small_batch(), PERTURBS["sam"]
  one, _ = run(batch, perturb=perturb)
  two, _ = run(batch, perturb=perturb, ascent=fs.loss_ascent(LOSS))
  assert_equal(one.params, two.params)


def test_plain_training_accumulates_gradients_over_micro_batches():
  batch = small_batch()
  state, metrics = run(batch, micro_batch_size=4)
  plain = optax.identity()  # a "perturb" whose result is the ascent gradient
  expected, loss, _ = slow_gradient(
    batch, 4, optax.with_extra_args_support(plain), fs.loss_ascent(LOSS)
  )
  assert_close(
    state.params, jax.tree.map(jnp.subtract, small_params(), expected)
  )
  assert set(metrics) == {"loss", "accuracy", "grad_norm", "skipped"}
  np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-6)


def test_more_micro_batches_than_are_unrolled(monkeypatch):
  monkeypatch.setattr("forgetsam.training._micro_batches.MOST_UNROLLED", 4)
  batch = small_batch(size=2 * 5)
  perturb = PERTURBS["sam"]
  state, _ = run(batch, perturb=perturb, micro_batch_size=2)
  expected, *_ = slow_gradient(batch, 2, perturb, fs.loss_ascent(LOSS))
  assert_close(
    state.params, jax.tree.map(jnp.subtract, small_params(), expected)
  )


def test_accuracy_takes_the_argmax_of_soft_labels():
  batch = small_batch()
  _, hard = run(batch)
  _, soft = run(
    batch | {"label": jax.nn.one_hot(batch["label"], 4) * 0.7 + 0.1}
  )
  assert 0 < hard["accuracy"] < 1
  assert hard["accuracy"] == soft["accuracy"]


@pytest.mark.parametrize("unrolled", [True, False])
@pytest.mark.parametrize("micro_batch_size", [16, 4, 2])
def test_the_state_of_perturb_advances_once_per_step(
  micro_batch_size, unrolled, monkeypatch
):
  if not unrolled:
    monkeypatch.setattr("forgetsam.training._micro_batches.MOST_UNROLLED", 1)
  radii = jnp.array([0.1, 0.2, 0.4])
  perturb = fs.perturbed_gradient(
    optax.chain(fs.gaussian_direction(0), fs.sam(lambda t: radii[t]))
  )
  step, state = make(perturb=perturb, micro_batch_size=micro_batch_size)
  for steps in (1, 2, 3):
    state, metrics = step(state, small_batch(), KEY)
    counts = optax.tree.get_all_with_path(state.perturb_state, "count")
    assert [int(count) for _, count in counts] == [steps, steps]
    np.testing.assert_allclose(
      metrics["perturbation_norm"], radii[steps - 1], rtol=1e-5
    )


def remember_ascent():
  """A perturbation with a float and a key in its state."""

  def init(params):
    return {
      "mean": jnp.zeros_like(params["b"]),
      "rho": jnp.float32(0.1),
      "key": jax.random.key(0),
    }

  def update(updates, state, params=None, **extra):
    new = {
      "mean": 0.9 * state["mean"] + 0.1 * updates["b"],
      "rho": state["rho"],
      "key": jax.random.split(state["key"])[0],
    }
    return jax.tree.map(lambda g: state["rho"] * g, updates), new

  return optax.GradientTransformationExtraArgs(init, update)


@pytest.mark.parametrize("unrolled", [True, False])
@pytest.mark.parametrize("devices", [None, 1, 2])
def test_the_state_of_perturb_is_the_mean_over_micro_batches(
  devices, unrolled, monkeypatch
):
  if not unrolled:
    monkeypatch.setattr("forgetsam.training._micro_batches.MOST_UNROLLED", 1)
  batch = small_batch(size=12)
  perturb = fs.perturbed_gradient(remember_ascent())
  mesh = devices and data_mesh(devices)
  state, _ = run(batch, perturb=perturb, micro_batch_size=2, mesh=mesh)
  inner = state.perturb_state.perturbation
  means = []
  for i in range(6):
    part = slice(2 * i, 2 * i + 2)
    key = jax.random.fold_in(jax.random.fold_in(KEY, 0), i)

    def loss(p, part=part, key=key):
      logits, _ = forward(p, {}, batch["image"][part], train=True, key=key)
      return LOSS(logits, batch["label"][part])

    means.append(0.1 * jax.grad(loss)(small_params())["b"])
  np.testing.assert_allclose(inner["mean"], np.mean(means, 0), atol=1e-7)
  # Equal values keep their bits: a hyper-parameter does not drift.
  assert inner["rho"] == jnp.float32(0.1)
  expected = jax.random.split(jax.random.key(0))[0]
  np.testing.assert_array_equal(
    jax.random.key_data(inner["key"]), jax.random.key_data(expected)
  )


def reuse_ascent(other):
  """Ascends in every second step; in between, `other` gives the direction."""

  def init(params):
    return {"count": jnp.zeros((), jnp.int32), "last": params}

  def update(updates, state, params=None, *, ascent_fn, opt_state, **extra):
    grads = jax.lax.cond(
      state["count"] % 2 == 0,
      ascent_fn,
      lambda p: other(state, opt_state),
      params,
    )
    return grads, {"count": state["count"] + 1, "last": grads}

  return optax.GradientTransformationExtraArgs(init, update)


@pytest.mark.parametrize(
  "other",
  [
    lambda state, opt_state: state["last"],
    lambda state, opt_state: optax.tree.get(opt_state, "trace"),
  ],
)
def test_skipped_ascents_reuse_stored_directions_on_any_mesh(other):
  perturb = fs.perturbed_gradient(optax.chain(reuse_ascent(other), fs.sam(0.5)))
  optimizer = fs.sgdw(0.1)
  results = []
  for mesh in (None, data_mesh(2)):
    state, _ = run(
      small_batch(),
      steps=3,
      optimizer=optimizer,
      perturb=perturb,
      micro_batch_size=4,
      mesh=mesh,
    )
    results.append(jax.device_get((state.params, state.perturb_state)))
  assert_close(*results, rtol=2e-5, atol=2e-6)


def test_the_model_state_advances_in_clean_passes_only():
  batch = small_batch()
  state, _ = run(
    batch,
    model_state=small_state(),
    perturb=PERTURBS["sam"],
    micro_batch_size=4,
  )
  assert state.model_state["count"] == 4
  mean = 0.0
  for i in range(4):
    key = jax.random.fold_in(jax.random.fold_in(KEY, 0), i)
    images = batch["image"][4 * i : 4 * i + 4]
    kept = images * jax.random.bernoulli(key, 0.8, images.shape)
    mean = 0.5 * mean + 0.5 * jnp.mean(kept)
  np.testing.assert_allclose(state.model_state["mean"], mean, rtol=1e-5)


def test_both_passes_share_a_dropout_key_that_changes_with_the_step():
  seen = []

  def spying(params, model_state, images, *, train, key):
    jax.debug.callback(
      lambda data: seen.append(tuple(np.asarray(data).ravel())),
      jax.random.key_data(key),
    )
    return forward(params, model_state, images, train=train, key=key)

  perturb, optimizer = PERTURBS["sam"], optax.sgd(0.1)
  step = fs.make_train_step(
    spying,
    loss=LOSS,
    optimizer=optimizer,
    perturb=perturb,
    micro_batch_size=8,
  )
  state = fs.create_train_state(small_params(), {}, optimizer, perturb)
  for _ in range(2):
    state, _ = step(state, small_batch(), KEY)
  jax.effects_barrier()
  assert len(seen) == 8  # two passes, two micro-batches, two steps
  assert len(set(seen)) == 4
  assert all(seen.count(key) == 2 for key in seen)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("perturb", [None, PERTURBS["sam"]])
def test_a_step_that_is_not_finite_keeps_the_old_state(bad, perturb):
  batch = small_batch()
  batch["image"] = batch["image"].at[3, 2].set(bad)
  optimizer = optax.chain(optax.adam(0.1), fs.params_ema(0.9))
  state, metrics = run(
    batch, model_state=small_state(), optimizer=optimizer, perturb=perturb
  )
  start = fs.create_train_state(
    small_params(), small_state(), optimizer, perturb
  )
  assert metrics["skipped"] == 1
  assert_equal(state, start)


def test_a_perturbed_loss_that_is_not_finite_keeps_the_old_state():
  """The clean loss and the gradient are finite here."""

  def value_and_grad(_, state, params=None, *, value_and_grad_fn, **extra):
    loss, grads = value_and_grad_fn(params)
    return grads, {"perturbed_loss": loss / 0.0}

  perturb = optax.GradientTransformationExtraArgs(
    lambda _: {"perturbed_loss": jnp.zeros(())}, value_and_grad
  )
  state, metrics = run(small_batch(), perturb=perturb)
  assert metrics["skipped"] == 1
  assert np.isfinite(metrics["loss"])
  assert np.isfinite(metrics["grad_norm"])
  assert_equal(state.params, small_params())
  assert state.step == 0


def test_huge_gradients_are_finite():
  def steep(logits, labels):
    return 1e25 * LOSS(logits, labels)

  optimizer, perturb = optax.sgd(1e-25), PERTURBS["sam"]
  step = fs.make_train_step(
    forward, loss=steep, optimizer=optimizer, perturb=perturb
  )
  state = fs.create_train_state(small_params(), {}, optimizer, perturb)
  state, metrics = step(state, small_batch(), KEY)
  assert metrics["skipped"] == 0
  assert metrics["grad_norm"] > 1e24
  ordinary, _ = run(small_batch(), perturb=perturb)
  assert_close(state.params, ordinary.params, rtol=1e-4, atol=1e-5)


def test_the_state_owns_its_buffers():
  params = small_params()
  optimizer = optax.chain(optax.sgd(0.1), fs.shrink_and_perturb(0.01))
  state = fs.create_train_state(params, {}, optimizer)
  step = fs.make_train_step(forward, loss=LOSS, optimizer=optimizer)
  new_state, _ = step(state, small_batch(), KEY)
  assert_equal(params, small_params())  # not donated with the state
  assert state.params["w"].is_deleted()
  assert not new_state.params["w"].is_deleted()


@pytest.mark.parametrize("devices", [None, 8])
def test_one_compilation(devices):
  mesh = devices and data_mesh(devices)
  optimizer = optax.chain(
    optax.inject_hyperparams(optax.adam)(lambda t: 0.1 / (1 + t)),
    # A state of weak type, which an update would strengthen.
    optax.GradientTransformation(
      lambda _: jnp.asarray(0.5), lambda g, s, p=None: (g, s + jnp.float32(1))
    ),
  )
  perturb = fs.perturbed_gradient(
    optax.inject_hyperparams(fs.sam)(rho=lambda t: 0.1 * (t + 1))
  )
  step = fs.make_train_step(
    forward, loss=LOSS, optimizer=optimizer, perturb=perturb, mesh=mesh
  )
  state = fs.create_train_state(small_params(), {}, optimizer, perturb, mesh)
  for _ in range(3):
    state, _ = step(state, small_batch(), KEY)
  assert step._cache_size() == 1


def bfloat16_run(batch):
  params = jax.tree.map(lambda w: w.astype(jnp.bfloat16), small_params())
  optimizer, perturb = optax.sgd(0.1), PERTURBS["sam"]
  step = fs.make_train_step(
    forward, loss=LOSS, optimizer=optimizer, perturb=perturb
  )
  state = fs.create_train_state(params, {}, optimizer, perturb)
  return step(state, batch, KEY)


def test_low_precision_parameters_keep_their_dtype():
  state, metrics = bfloat16_run(small_batch())
  assert all(w.dtype == jnp.bfloat16 for w in jax.tree.leaves(state.params))
  np.testing.assert_allclose(metrics["perturbation_norm"], 0.5, rtol=1e-2)


def test_a_step_can_be_copied():
  step = fs.make_train_step(forward, loss=LOSS, optimizer=optax.sgd(0.1))
  assert copy.copy(step).lower == step.lower


class TestErrors:
  def test_ascent_without_perturb(self):
    with pytest.raises(ValueError, match=r"ascent .* without perturb"):
      run(small_batch(), ascent=fs.output_bias_forgetting())

  def test_a_micro_batch_that_does_not_divide(self):
    with pytest.raises(ValueError, match=r"micro_batch_size=6 must .* of 16"):
      run(small_batch(), micro_batch_size=6)

  @pytest.mark.parametrize("size", [0, -4])
  def test_a_micro_batch_that_is_no_positive_integer(self, size):
    with pytest.raises(ValueError, match=f"micro_batch_size={size}"):
      run(small_batch(), micro_batch_size=size)

  def test_a_batch_without_labels_or_with_a_list_of_them(self):
    batch = small_batch()
    with pytest.raises(ValueError, match="no 'label', only \\['image'\\]"):
      run({"image": batch["image"]})
    with pytest.raises(ValueError, match=r"list.* array"):
      run(batch | {"label": batch["label"].tolist()})

  def test_an_empty_batch(self):
    batch = jax.tree.map(lambda x: x[:0], small_batch())
    with pytest.raises(ValueError, match="the batch is empty"):
      run(batch)

  @pytest.mark.parametrize("made_with", [None, PERTURBS["sam"]])
  def test_a_state_of_another_kind_of_training(self, made_with):
    optimizer = optax.sgd(0.1)
    perturb = PERTURBS["sam"] if made_with is None else None
    step = fs.make_train_step(
      forward, loss=LOSS, optimizer=optimizer, perturb=perturb
    )
    state = fs.create_train_state(small_params(), {}, optimizer, made_with)
    with pytest.raises(ValueError, match="pass the same perturb"):
      step(state, small_batch(), KEY)

  def test_an_explicit_axis(self):
    mesh = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1])
    with pytest.raises(ValueError, match="of type Auto"):
      run(small_batch(), mesh=mesh)

  def test_a_bare_perturbation_as_perturb(self):
    with pytest.raises(ValueError, match="perturb=perturbed_gradient"):
      run(small_batch(), perturb=fs.sam(0.1))

  def test_a_perturbed_gradient_inside_the_optimizer(self):
    optimizer = optax.chain(PERTURBS["sam"], optax.sgd(0.1))
    with pytest.raises(ValueError, match="pass it as perturb"):
      run(small_batch(), optimizer=optimizer)

  def test_a_batch_that_the_devices_do_not_divide(self):
    with pytest.raises(ValueError, match=r"8 devices .* 12"):
      run(small_batch(12), mesh=data_mesh(8))

  def test_images_and_labels_of_different_length(self):
    batch = small_batch()
    with pytest.raises(ValueError, match=r'"image".*16 examples.*"label".* 15'):
      run(batch | {"label": batch["label"][:15]})

  def test_another_axis(self):
    mesh = jax.make_mesh(
      (1,),
      ("model",),
      axis_types=(jax.sharding.AxisType.Auto,),
      devices=jax.devices()[:1],
    )
    with pytest.raises(ValueError, match="must have the axis 'data'"):
      run(small_batch(), mesh=mesh)
