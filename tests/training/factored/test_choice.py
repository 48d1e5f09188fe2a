"""Which steps are taken in factors, how many examples at once, and why not."""

import csv
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from markdown_pages import ROOT

import forgetsam as fs
from benchmarks import m_sharpness
from forgetsam.training.factored import _choice
from forgetsam.training.factored._costs import COSTS, estimate


def _step(module, shape, m, batch, how, **options):
  """A step, its first state and the shapes of its batch; none is run."""
  params, model_state = module
  perturb = fs.perturbed_gradient(options.pop("perturbation", fs.sam(0.1)))
  step = fs.make_train_step(
    options.pop("forward"),
    loss=fs.sigmoid_cross_entropy(),
    optimizer=optax.sgd(1.0),
    perturb=perturb,
    micro_batch_size=m,
    m_sharpness=how,
    **options,
  )
  state = fs.create_train_state(params, model_state, optax.sgd(1.0), perturb)
  spec = jax.ShapeDtypeStruct
  label = spec((batch,), jnp.int32)
  return (
    step,
    state,
    {"image": spec((batch, *shape), jnp.float32), "label": label},
  )


@functools.cache
def _registered(name, shape):
  module = fs.models.create(name, num_classes=10)
  weights = fs.models.initialise(module, jax.random.key(0), shape)
  return weights, fs.models.forward(module)


def _of_model(name, shape, m, batch, how, **options):
  weights, forward = _registered(name, shape)
  return _step(weights, shape, m, batch, how, forward=forward, **options)


def _of_function(function, how, m=2, batch=8, **options):
  """A model of 24 features whose head and state are a function's."""

  def forward(params, model_state, x, *, train, key):
    h = jnp.tanh(x @ params["a"])
    logits, shift = function(h, params["c"], key, model_state["shift"])
    return logits, {"shift": shift}

  params = {"a": np.ones((24, 32)) / 8, "c": np.ones((32, 10)) / 8}
  options["forward"] = forward
  model_state = {"shift": np.zeros(10, np.float32)}
  return _step((params, model_state), (24,), m, batch, how, **options)


def _linear(h, c, key, shift):
  return h @ c, shift


@pytest.mark.parametrize(
  ("name", "shape", "m", "batch", "how"),
  [
    ("mlp", (28, 28, 1), 1, 128, "factored"),
    ("mlp", (28, 28, 1), 8, 128, "factored"),
    ("mlp", (28, 28, 1), 32, 128, "factored"),
    ("mlp", (28, 28, 1), 128, 128, "loop"),
    ("vit_tiny", (8, 8, 1), 1, 64, "factored"),
    ("vit_tiny", (8, 8, 1), 8, 64, "factored"),
    ("cnn", (8, 8, 1), 32, 64, "factored"),
  ],
)
def test_what_auto_takes_on_a_cpu(name, shape, m, batch, how):
  step, state, specs = _of_model(name, shape, m, batch, "auto")
  found = step.m_sharpness(state, specs)
  assert found.how == how, found.reason
  assert found.chunk == (batch if how == "factored" else m)


@pytest.mark.long
def test_auto_takes_what_the_benchmark_found_faster():
  """To a tenth, in every case that it has measured."""
  with (ROOT / "docs" / "m_sharpness" / "times.csv").open() as file:
    rows = [row for row in csv.DictReader(file) if row["time"]]
  times = {
    (row["model"], int(row["m"]), row["how"]): float(row["time"])
    for row in rows
  }
  cases = [(name, m) for name, m, how in times if how == "factored"]
  assert len(cases) > 30
  for name, m in cases:
    setup = m_sharpness.SETUPS[name]
    if m < setup.batch:
      planned = m_sharpness.plan(setup, m)
      fast, slow = estimate(planned, setup.batch // m, COSTS["cpu"])
      both = [times[name, m, how] for how in ("factored", "loop")]
      assert both[fast > slow] < 1.1 * min(both), (name, m)


def test_auto_never_takes_what_the_costs_call_slower(monkeypatch):
  monkeypatch.setattr(_choice, "estimate", lambda *_: (1.01, 1.0))
  step, state, specs = _of_function(_linear, "auto")
  found = step.m_sharpness(state, specs)
  assert found.how == "loop"
  assert "1.0 times as long" in found.reason


@jax.custom_jvp
def _alone(logits):
  """Doubles on the host, one micro-batch a call."""
  return jax.pure_callback(lambda x: 2 * x, logits, logits)


_alone.defjvp(lambda xs, ts: (_alone(*xs), 2 * ts[0]))


def _dropped(h, c, key, shift):
  return (h * jax.random.bernoulli(key, 0.5, h.shape)) @ c, shift


FALLBACKS = {
  "a function that vmap refuses": (
    lambda h, c, key, shift: (_alone(h @ c), shift),
    "side by side: .*vmap",
  ),
  "outputs of the model's state": (
    lambda h, c, key, shift: (h @ c + shift, shift),
    "outputs read the model's state",
  ),
  "a state of parameters": (
    lambda h, c, key, shift: (h @ c, 0.9 * shift + (c @ shift) @ c),
    "parameter is multiplied by the model's state",
  ),
  "dropout by keys that differ under vmap": (_dropped, "not of threefry"),
}


@pytest.mark.parametrize("name", FALLBACKS)
def test_auto_takes_the_loop_where_it_must(name, monkeypatch):
  function, reason = FALLBACKS[name]
  monkeypatch.setattr(_choice, "estimate", lambda *_: (1.0, 2.0))
  with jax.default_prng_impl("rbg"):
    step, state, specs = _of_function(function, "auto")
    found = step.m_sharpness(state, specs)
    assert (found.how, found.chunk) == ("loop", 2)
    assert re.search(reason, found.reason)
    jax.eval_shape(lambda *a: step(*a), state, specs, jax.random.key(0))
    step, *arguments = _of_function(function, "factored")
    with pytest.raises(ValueError, match=f'"factored" cannot.*{reason}'):
      step.m_sharpness(*arguments)


def test_keys_that_nothing_reads_do_not_matter():
  with jax.default_prng_impl("rbg"):
    step, *arguments = _of_function(_linear, "factored")
    assert step.m_sharpness(*arguments).how == "factored"


def test_products_of_rows_are_exact_on_accelerators():
  step, *arguments = _of_function(_linear, "factored")
  text = step.lower(*arguments, jax.random.key(0)).as_text()
  assert "precision = [HIGHEST, HIGHEST]" in text


def _memory(step, state, specs):
  """Bytes that live only during the step."""
  compiled = step.lower(state, specs, jax.random.key(0)).compile()
  return compiled.memory_analysis().temp_size_in_bytes


def _assert_bounded(make, least):
  """At most two loops or `least`, and the parameters twice."""
  step, state, specs = make("factored")
  size = sum(x.nbytes for x in jax.tree.leaves(state.params))
  loop = _memory(*make("loop"))
  assert _memory(step, state, specs) <= max(2 * loop, least) + 2 * size
  return step.m_sharpness(state, specs).chunk


def test_memory_is_bounded(monkeypatch):
  monkeypatch.setattr(_choice, "_LEAST_MEMORY", 2**20)
  make = functools.partial(_of_function, _linear, m=64, batch=4096)
  assert 64 < _assert_bounded(make, 2**20) < 4096


def test_chunks_follow_one_another():
  make = functools.partial(_of_function, _linear, m=16, batch=256)
  unrolled = _memory(*make("loop"))
  assert _memory(*make("factored", m_sharpness_chunk=32)) < unrolled / 2


@pytest.mark.long
@pytest.mark.parametrize(
  ("name", "shape", "m"), [("vit_tiny", (8, 8, 1), 64), ("cnn", (16, 16, 1), 1)]
)
def test_memory_of_networks_is_bounded(name, shape, m):
  make = functools.partial(_of_model, name, shape, m, 4096)
  assert _assert_bounded(make, 256 * 2**20) < 4096


def test_a_chunk_is_taken_as_given():
  step, *arguments = _of_function(_linear, "factored", m_sharpness_chunk=4)
  assert step.m_sharpness(*arguments).chunk == 4


@pytest.mark.parametrize("how", ["auto", "factored"])
@pytest.mark.parametrize("chunk", [3, 96])
def test_a_chunk_that_does_not_divide_is_refused(chunk, how):
  step, *arguments = _of_function(
    _linear, how, batch=256, m_sharpness_chunk=chunk
  )
  with pytest.raises(
    ValueError, match=rf"m_sharpness_chunk={chunk} .*multiple"
  ):
    step.m_sharpness(*arguments)


def test_unknown_modes_are_refused():
  with pytest.raises(ValueError, match=r"m_sharpness='fast' .*auto"):
    _of_function(_linear, "fast")
