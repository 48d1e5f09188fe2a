"""Whole steps, taken together and one micro-batch after another: the same."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import forgetsam as fs
from forgetsam._arrays import tree_norm

SIZE, M = 16, 2


@pytest.fixture(autouse=True)
def _float64():
  with jax.enable_x64(True):
    yield


def _params():
  rng = np.random.RandomState(0)
  shapes = {"a": (12, 16), "b": (16,), "scale": (16,), "c": (16, 5)}
  return {k: jnp.asarray(rng.randn(*s) / 4) for k, s in shapes.items()}


STATE = {"mean": np.zeros(16), "batches": np.zeros((), np.int32)}


def forward(params, model_state, x, *, train, key):
  """Dense, batch normalisation, dropout, Dense."""
  h = x @ params["a"] + params["b"]
  mean = h.mean(0)
  h = (h - mean) / jnp.sqrt(((h - mean) ** 2).mean(0) + 0.1) * params["scale"]
  keep = jax.random.bernoulli(key, 0.8, h.shape)
  model_state = {
    "mean": 0.9 * model_state["mean"] + 0.1 * mean,
    "batches": model_state["batches"] + 1,
  }
  return jnp.where(keep, jnp.tanh(h), 0) @ params["c"], model_state


def _batch(mask=None):
  rng = np.random.RandomState(1)
  batch = {"image": rng.randn(SIZE, 12), "label": rng.randint(0, 5, SIZE)}
  if mask is not None:
    batch["mask"] = mask
  return jax.tree.map(jnp.asarray, batch)


def _matrices(params):
  return jax.tree.map(lambda w: w.ndim > 1, params)


def _run(perturb, how, *, mask=None, steps=2, **options):
  optimizer = fs.sgdw(0.1, momentum=0.9)
  step = fs.make_train_step(
    forward,
    loss=fs.softmax_cross_entropy(),
    optimizer=optimizer,
    perturb=perturb,
    micro_batch_size=M,
    m_sharpness=how,
    **options,
  )
  mesh = options.get("mesh")
  state = fs.create_train_state(
    _params(),
    jax.tree.map(jnp.asarray, STATE),
    optimizer,
    perturb,
    mesh,
    shard_opt_state=options.get("shard_opt_state", False),
  )
  for _ in range(steps):
    state, metrics = step(state, _batch(mask), jax.random.key(3))
  return state, metrics


def _assert_same(perturb, *, rtol=1e-8, **options):
  found = _run(perturb, "factored", **options)
  options.pop("m_sharpness_chunk", None)
  expected = _run(perturb, "loop", **options)
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
  for f, e in pairs:
    assert f.dtype == e.dtype
    if jnp.issubdtype(e.dtype, jnp.number):
      # Losses, norms and the mask's weights are in float32.
      exact = e.dtype == jnp.float64 and options.get("mask") is None
      np.testing.assert_allclose(
        f, e, rtol=rtol if exact else 1e-5, atol=1e-11 if exact else 1e-6
      )


PERTURBATIONS = {
  "sam": (fs.sam(0.3), None),
  "a schedule": (fs.sam(optax.linear_schedule(0.1, 0.4, 2)), None),
  "a scaled chain": (optax.chain(optax.scale(-2.0), fs.sam(0.3)), None),
  "only matrices": (fs.only(fs.sam(0.3), _matrices), None),
  "only the others": (
    fs.only(fs.sam(0.3), {"a": False, "b": True, "scale": True, "c": False}),
    None,
  ),
  "a partition": (
    optax.partition(
      {"matrix": fs.sam(0.3), "vector": fs.sam(0.1)},
      {"a": "matrix", "b": "vector", "scale": "vector", "c": "matrix"},
    ),
    None,
  ),
  "one step of three": (fs.active_between(fs.sam(0.3), 1, 2), None),
  "friendly": (fs.friendly_sam(0.3), None),
  "momentum": (fs.momentum_ascent(0.3), None),
  "unified": (fs.unified_sam(0.3, 0.5), None),
  "loss-equated": (fs.le_sam(0.3, sigma=0.05), None),
  "gsam": (fs.sam(0.3), fs.surrogate_gap(0.4)),
  "gsam, normalised": (fs.sam(0.3), fs.surrogate_gap(0.4, normalized=True)),
  "wsam": (fs.sam(0.3), fs.weighted(0.7)),
  "friendly gsam": (
    fs.friendly_sam(0.3),
    fs.surrogate_gap(0.4, normalized=True),
  ),
}


# The others run with the long tests.
ALWAYS = (
  "only matrices",
  "friendly gsam",
  "obf of a part of weighed examples, in chunks",
  "whole micro-batches in chunks",
)


def _some_long(names):
  return [
    name if name in ALWAYS else pytest.param(name, marks=pytest.mark.long)
    for name in names
  ]


@pytest.mark.parametrize("name", _some_long(PERTURBATIONS))
def test_steps_are_the_loops(name):
  _assert_same(fs.perturbed_gradient(*PERTURBATIONS[name]))


MASKS = {
  "examples": np.r_[np.ones(5), np.zeros(4), 0.5 * np.ones(7)],
  "whole micro-batches": np.r_[np.zeros(4), np.ones(10), np.zeros(2)],
}
OPTIONS = {
  "obf": {"ascent": fs.output_bias_forgetting()},
  "obf of a part of weighed examples, in chunks": {
    "ascent": fs.output_bias_forgetting(),
    "ascent_fraction": 0.5,
    "mask": MASKS["examples"],
    "m_sharpness_chunk": 4,
  },
  "half of each micro-batch": {"ascent_fraction": 0.5},
  **{name: {"mask": mask} for name, mask in MASKS.items()},
  **{
    f"{name} in chunks": {"mask": mask, "m_sharpness_chunk": 4}
    for name, mask in MASKS.items()
  },
}


@pytest.mark.parametrize("name", _some_long(OPTIONS))
def test_options_are_the_loops(name):
  # With a mask, results weigh in two ways: whole, or by their coefficients.
  combines = name == "whole micro-batches in chunks"
  method = PERTURBATIONS["friendly gsam" if combines else "sam"]
  _assert_same(fs.perturbed_gradient(*method), **OPTIONS[name])


@pytest.mark.parametrize(
  ("devices", "name"),
  [
    (2, "sam"),
    pytest.param(2, "friendly gsam", marks=pytest.mark.long),
    pytest.param(8, "friendly gsam", marks=pytest.mark.long),
  ],
)
def test_devices_are_the_loops(devices, name):
  mesh = jax.make_mesh(
    (devices,),
    ("data",),
    devices=jax.devices()[:devices],
    axis_types=(jax.sharding.AxisType.Auto,),
  )
  perturb = fs.perturbed_gradient(*PERTURBATIONS[name])
  mask = MASKS["examples"] if devices == 2 else None
  _assert_same(perturb, mesh=mesh, mask=mask, shard_opt_state=devices == 2)


def test_a_radius_may_be_traced_and_vmapped():
  def steps(how):
    def alone(rho):
      perturb = optax.chain(
        fs.perturbed_gradient(fs.sam(rho)), optax.scale(0.5)
      )
      state, _ = _run(perturb, how, steps=1)
      return state.params

    return jax.jit(jax.vmap(alone))(jnp.array([0.0, 0.3]))

  found, expected = steps("factored"), steps("loop")
  for f, e in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
    np.testing.assert_allclose(f, e, rtol=1e-8, atol=1e-11)


def _remembering(rho):
  """Keeps an array of each micro-batch: its norm, again and again."""
  sam = fs.sam(rho)

  def update(grads, state, params=None, **extra):
    delta, state = sam.update(grads, state[0], params, **extra)
    return delta, (state, jnp.full(5000, tree_norm(grads)))

  return optax.GradientTransformationExtraArgs(
    lambda params: (sam.init(params), jnp.zeros(5000)), update
  )


REFUSED = {
  "a large state": (_remembering(0.3), "array of each micro-batch"),
  "asam": (fs.asam(0.3), "entry by entry|norms"),
  "random": (fs.random_perturbation(0.3, seed=0), "differs between|draw"),
  "several points": (fs.multi_step(fs.sam(0.3), 2), "other functions"),
  "every second": (fs.every_k(fs.sam(0.3), 2), "norms|other functions"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_others_are_refused_by_name(name):
  perturbation, reason = REFUSED[name]
  perturb = fs.perturbed_gradient(perturbation)
  with pytest.raises(ValueError, match=f'"factored" cannot.*({reason})'):
    _run(perturb, "factored", steps=1)


def test_auto_takes_the_loop_for_them():
  step = functools.partial(_run, fs.perturbed_gradient(fs.asam(0.3)), steps=1)
  found, expected = step("auto"), step("loop")
  same = jax.tree.map(lambda f, e: bool(jnp.all(f == e)), found, expected)
  assert all(jax.tree.leaves(same))
