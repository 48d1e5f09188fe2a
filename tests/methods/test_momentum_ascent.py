"""MSAM: the offset is the optimizer's momentum at a fixed length."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from meshes import data_mesh

import forgetsam as fs

A = np.array([[3.0, 1.0], [1.0, 2.0]])
RHO = 0.5


def grad_fn(params):
  w = jnp.concatenate([params["a"], params["b"]])
  g = jnp.asarray(A, jnp.float32) @ w
  return {"a": g[:1], "b": g[1:]}


PARAMS = {"a": jnp.ones(1), "b": jnp.array([-2.0])}


def vector(params):
  return np.concatenate([params["a"], params["b"]])


@pytest.mark.parametrize("radius", [RHO, lambda t: 0.1 * (1.0 + t)])
def test_the_algorithm_of_the_paper_by_hand(radius):
  """w~ = w - rho v/||v||;  v = mu v + grad(w~);  w = w - eta v."""
  perturb = fs.perturbed_gradient(fs.momentum_ascent(radius))
  optimizer = optax.sgd(0.1, momentum=0.9)
  params, state = PARAMS, perturb.init(PARAMS)
  opt_state = optimizer.init(params)
  w, v = vector(params), np.zeros(2)
  for t in range(4):
    grads, state = perturb.update(
      grad_fn(params), state, params, grad_fn=grad_fn, opt_state=opt_state
    )
    updates, opt_state = optimizer.update(grads, opt_state, params)
    params = optax.apply_updates(params, updates)
    rho = radius(t) if callable(radius) else radius
    perturbed = w - rho * v / (np.linalg.norm(v) or 1)
    v = 0.9 * v + A @ perturbed
    w = w - 0.1 * v
    np.testing.assert_allclose(vector(params), w, rtol=1e-5)


OPTIMIZERS = {
  "sgdw": fs.sgdw(0.1, weight_decay=0.01),
  "adamw": optax.adamw(0.1),
  "chain": optax.chain(optax.clip(10.0), optax.adam(0.1)),
  "injected": optax.inject_hyperparams(optax.sgd)(0.1, momentum=0.9),
  "multi_steps": optax.MultiSteps(optax.sgd(0.1, momentum=0.9), 1),
  "lion": optax.lion(0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_momentum_of_any_optimizer_is_found(name):
  optimizer = OPTIMIZERS[name]
  g = grad_fn(PARAMS)
  _, opt_state = optimizer.update(g, optimizer.init(PARAMS), PARAMS)
  perturbation = fs.momentum_ascent(RHO)
  delta, _ = perturbation.update(
    g, perturbation.init(PARAMS), PARAMS, opt_state=opt_state
  )
  direction = vector(g) / np.linalg.norm(vector(g))
  np.testing.assert_allclose(vector(delta), -RHO * direction, rtol=1e-4)


@pytest.mark.parametrize("how", ["only", "partition"])
def test_for_a_part_of_the_arrays(how):
  if how == "only":
    perturbation = fs.only(fs.momentum_ascent(RHO), {"a": False, "b": True})
  else:
    perturbation = optax.partition(
      {"x": fs.momentum_ascent(0.0), "y": fs.momentum_ascent(RHO)},
      {"a": "x", "b": "y"},
    )
  opt_state = optax.TraceState({"a": jnp.array([3.0]), "b": jnp.array([4.0])})
  delta, _ = perturbation.update(
    PARAMS, perturbation.init(PARAMS), PARAMS, opt_state=opt_state
  )
  np.testing.assert_allclose(vector(delta), [0, -RHO], rtol=1e-6)


def test_in_the_train_step_without_an_ascent():
  images = jax.random.normal(jax.random.key(0), (8, 3))
  labels = jnp.arange(8) % 2
  kernel = jax.random.normal(jax.random.key(1), (3, 2))
  loss = fs.softmax_cross_entropy()

  def forward(params, model_state, images, *, train, key):
    return images @ params["kernel"], model_state

  def signal(logits, labels):
    return jnp.nan * logits  # would be seen if it were read

  mesh = data_mesh()
  optimizer = fs.sgdw(0.5, momentum=0.9)
  perturb = fs.perturbed_gradient(fs.momentum_ascent(RHO))
  step = fs.make_train_step(
    forward,
    loss=loss,
    optimizer=optimizer,
    ascent=signal,
    perturb=perturb,
    micro_batch_size=1,
    mesh=mesh,
  )
  state = fs.create_train_state(
    {"kernel": kernel}, {}, optimizer, perturb, mesh
  )
  gradient = jax.grad(lambda w: loss(images @ w, labels))
  w, v = kernel, jnp.zeros((3, 2))
  for t in range(3):
    state, metrics = step(
      state, {"image": images, "label": labels}, jax.random.key(0)
    )
    v = 0.9 * v + gradient(w - RHO * v / (jnp.linalg.norm(v) if t else 1))
    w = w - 0.5 * v
    np.testing.assert_allclose(state.params["kernel"], w, rtol=2e-4, atol=1e-6)
  assert "ascent_grad_norm" not in metrics


def test_what_is_missing_is_named():
  perturbation = fs.momentum_ascent(RHO)
  state = perturbation.init(PARAMS)

  def update(**arguments):
    return perturbation.update(PARAMS, state, PARAMS, **arguments)

  with pytest.raises(ValueError, match="momentum_ascent needs opt_state"):
    update()
  with pytest.raises(ValueError, match=r"no momentum .* sgdw\(learning_rate"):
    update(opt_state=optax.sgd(0.1).init(PARAMS))
  with pytest.raises(ValueError, match="not that of params"):
    update(opt_state=optax.TraceState({"a": jnp.ones(1)}))
  partial = optax.partition(
    {"x": optax.sgd(0.1, momentum=0.9), "y": optax.sgd(0.1)},
    {"a": "x", "b": "y"},
  )
  with pytest.raises(ValueError, match=r"momentum_ascent .* params"):
    update(opt_state=partial.init(PARAMS))
  with pytest.raises(ValueError, match="rho=-1 must be"):
    fs.momentum_ascent(-1)
