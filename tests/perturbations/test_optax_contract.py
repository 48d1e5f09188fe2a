"""The contract of optax, for every exported perturbation."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from transforms_table import (
  GRADIENT_METHODS,
  GRADIENTS,
  PERTURBATIONS,
  names,
)

import forgetsam as fs
from forgetsam import methods, perturbations

NOT_PERTURBATIONS = {
  "decoupled_wsam",
  "look_sam",
  "norm_layers",
  "perturbed_gradient",
  "surrogate_gap",
  "weighted",
  "with_clean_gradient",
  # It needs an optimizer's state: test_momentum_ascent.py.
  "momentum_ascent",
}
# Their length is rho exactly; others' depends on weights or gradient.
OTHER_LENGTHS = {
  "asam",
  "asam_layerwise",
  "asam_linf",
  "fisher_sam",
  "layer_sam",
  *("le_sam", "unified_sam", "zsharp"),
  *("dynamic_mask", "fisher_mask", "sparse_sam"),
}
OF_LENGTH_RHO = sorted(set(PERTURBATIONS) - OTHER_LENGTHS)

X = jax.random.normal(jax.random.key(1), (8, 3))
PARAMS = {
  "w": jax.random.normal(jax.random.key(0), (3, 2)),
  "b": jnp.array([0.3, -0.2]),
}


def loss(params):
  return jnp.mean(jnp.tanh(X @ params["w"] + params["b"]) ** 2)


GRAD_FN = jax.grad(loss)


def gradient_at(params, delta):
  return GRAD_FN(jax.tree.map(jnp.add, params, delta))


def assert_trees_close(actual, expected, **tolerance):
  tolerance = tolerance or {"rtol": 1e-5, "atol": 1e-7}
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  for x, y in zip(
    jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(x, y, **tolerance)


def norm(tree):
  return np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(tree)))


def test_no_exported_perturbation_is_missing_here():
  exported = {
    name
    for package in (perturbations, methods)
    for name in package.__all__
    if inspect.isfunction(getattr(package, name))
  }
  others = NOT_PERTURBATIONS | GRADIENT_METHODS.keys()
  assert exported - others <= set(PERTURBATIONS)
  # test_every_transform.py
  others = {"norm_layers", "perturbed_gradient", "decoupled_wsam"}
  assert exported - others <= set(GRADIENTS)


@pytest.mark.parametrize("name", names(PERTURBATIONS))
def test_stands_first_in_a_chain(name):
  """Clipping, Adam, decay and schedules see the perturbed gradient."""
  rest = optax.chain(
    optax.clip_by_global_norm(0.1),
    optax.adamw(optax.linear_schedule(0.1, 0.01, 10), weight_decay=0.1),
  )
  perturbation = PERTURBATIONS[name](0.2)
  chain = optax.chain(fs.perturbed_gradient(perturbation), rest)
  state, rest_state = chain.init(PARAMS), rest.init(PARAMS)
  perturbation_state, params = perturbation.init(PARAMS), PARAMS
  for _ in range(3):
    grads = GRAD_FN(params)
    delta, perturbation_state = perturbation.update(
      grads, perturbation_state, params
    )
    expected, rest_state = rest.update(
      gradient_at(params, delta), rest_state, params
    )
    updates, state = chain.update(grads, state, params, grad_fn=GRAD_FN)
    assert_trees_close(updates, expected)
    params = optax.apply_updates(params, updates)


@pytest.mark.parametrize("name", names(PERTURBATIONS))
def test_under_only_the_norm_runs_over_the_chosen(name):
  perturbation = fs.only(FACTORIES_OF_W[name](0.2), {"w": True, "b": False})
  grads = GRAD_FN(PARAMS)
  delta, _ = perturbation.update(grads, perturbation.init(PARAMS), PARAMS)
  np.testing.assert_array_equal(delta["b"], 0)
  alone = FACTORIES_OF_W[name](0.2)
  w = {"w": PARAMS["w"]}
  expected, _ = alone.update({"w": grads["w"]}, alone.init(w), w)
  np.testing.assert_allclose(delta["w"], expected["w"], rtol=1e-6)


FACTORIES_OF_W = PERTURBATIONS | {
  "only": lambda rho: fs.only(fs.sam(rho), True)
}


@pytest.mark.parametrize("name", names(PERTURBATIONS))
def test_under_partition_each_group_has_its_own_radius_and_norm(name):
  factory = FACTORIES_OF_W[name]
  perturbation = optax.partition(
    {"weights": factory(0.2), "biases": factory(0.05)},
    {"w": "weights", "b": "biases"},
  )
  grads = GRAD_FN(PARAMS)
  transform = fs.perturbed_gradient(perturbation)
  actual, _ = transform.update(
    grads, transform.init(PARAMS), PARAMS, grad_fn=GRAD_FN
  )
  delta = {}
  for key, rho in (("w", 0.2), ("b", 0.05)):
    part = {key: PARAMS[key]}
    alone = factory(rho)
    delta |= alone.update({key: grads[key]}, alone.init(part), part)[0]
    if name in OF_LENGTH_RHO:
      np.testing.assert_allclose(norm(delta[key]), rho, rtol=1e-5)
  assert_trees_close(actual, gradient_at(PARAMS, delta))


@pytest.mark.parametrize("name", names(PERTURBATIONS))
def test_inside_scan(name):
  optimizer = optax.chain(
    fs.perturbed_gradient(PERTURBATIONS[name](lambda t: 0.1 + 0.1 * t)),
    optax.sgd(0.1),
  )

  def step(carry, _):
    params, state = carry
    updates, state = optimizer.update(
      GRAD_FN(params), state, params, grad_fn=GRAD_FN
    )
    return (optax.apply_updates(params, updates), state), None

  start = (PARAMS, optimizer.init(PARAMS))
  scanned, _ = jax.lax.scan(step, start, length=4)
  looped = start
  for _ in range(4):
    looped, _ = step(looped, None)
  assert_trees_close(scanned[0], looped[0])


@pytest.mark.parametrize(
  "name", ["sam", "asam", "random_perturbation", "friendly_sam"]
)
@pytest.mark.parametrize("rho", [0.2, lambda t: 0.2 / (1 + t)])
def test_inject_hyperparams(name, rho):
  factory = getattr(fs, name)
  fixed = {"seed": 0} if name == "random_perturbation" else {}
  injected = optax.inject_hyperparams(factory)(rho=rho, **fixed)
  direct = factory(rho=rho, **fixed)
  states = injected.init(PARAMS), direct.init(PARAMS)
  for t in range(3):
    one, injected_state = injected.update(GRAD_FN(PARAMS), states[0], PARAMS)
    two, direct_state = direct.update(GRAD_FN(PARAMS), states[1], PARAMS)
    states = injected_state, direct_state
    assert_trees_close(one, two)
    expected = rho(t) if callable(rho) else rho
    np.testing.assert_allclose(
      injected_state.hyperparams["rho"], expected, rtol=1e-6
    )
  if not callable(rho):
    injected_state.hyperparams["rho"] = jnp.asarray(0.4)
    delta, _ = injected.update(GRAD_FN(PARAMS), injected_state, PARAMS)
    assert_trees_close(
      jax.tree.map(lambda x: x / 2, delta),
      direct.update(GRAD_FN(PARAMS), direct_state, PARAMS)[0],
    )


@pytest.mark.parametrize("name", names(PERTURBATIONS))
def test_traced_hyper_parameters_under_vmap(name):
  def perturbed(rho):
    transform = fs.perturbed_gradient(PERTURBATIONS[name](rho))
    return transform.update(
      GRAD_FN(PARAMS), transform.init(PARAMS), PARAMS, grad_fn=GRAD_FN
    )

  rhos = jnp.array([0.0, 0.1, 0.5])
  mapped, states = jax.vmap(perturbed)(rhos)
  for i, rho in enumerate(rhos):
    one, _ = perturbed(float(rho))
    assert_trees_close(jax.tree.map(lambda x, i=i: x[i], mapped), one)
  if name in OF_LENGTH_RHO:
    np.testing.assert_allclose(states.perturbation_norm, rhos, rtol=1e-5)


@pytest.mark.parametrize("name", names(PERTURBATIONS))
def test_unknown_extra_arguments_are_ignored(name):
  perturbation = PERTURBATIONS[name](0.1)
  transform = fs.perturbed_gradient(perturbation)
  for arguments in ({}, {"value": 1.0, "batch": {"image": X}, "epoch": 3}):
    state = perturbation.init(PARAMS)
    delta, _ = perturbation.update(GRAD_FN(PARAMS), state, PARAMS, **arguments)
    grads, _ = transform.update(
      GRAD_FN(PARAMS),
      transform.init(PARAMS),
      PARAMS,
      grad_fn=GRAD_FN,
      **arguments,
    )
    assert_trees_close(grads, gradient_at(PARAMS, delta))


@pytest.mark.parametrize("name", names(PERTURBATIONS))
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_no_recompilation_and_a_stable_state(name, dtype):
  transform = fs.perturbed_gradient(
    PERTURBATIONS[name](lambda t: 0.1 + 0.0 * t)
  )
  params = jax.tree.map(lambda w: w.astype(dtype), PARAMS)
  traces = []

  @jax.jit
  def update(params, state):
    traces.append(1)
    grads, state = transform.update(params, state, params, grad_fn=lambda p: p)
    return grads, state

  state = transform.init(params)
  for _ in range(3):
    grads, new_state = update(params, state)
    assert jax.tree.structure(new_state) == jax.tree.structure(state)
    assert jax.tree.map(jnp.result_type, new_state) == jax.tree.map(
      jnp.result_type, state
    )
    assert all(g.dtype == dtype for g in jax.tree.leaves(grads))
    state = new_state
  assert len(traces) == 1
