"""Complex parameters: the step on their real and imaginary parts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from meshes import data_mesh
from transforms_table import (
  GRADIENT_METHODS,
  GRADIENTS,
  OF_REAL,
  PERTURBING_METHODS,
  init,
  names,
  step,
)

import forgetsam as fs
from forgetsam._arrays import plain_norm, tree_dot, tree_norm

ASAM = {"asam", "scale_by_magnitude"}
RANDOM = {"random_perturbation", "gaussian_direction"}


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_a_radius_is_that_of_absolute_values(scale):
  for g, expected in (
    ([3 + 4j], [0.3 + 0.4j]),
    ([1, 1j], [0.5 / np.sqrt(2), 0.5j / np.sqrt(2)]),
    ([1, -1j, 0], [0.5 / np.sqrt(2), -0.5j / np.sqrt(2), 0]),
  ):
    g = scale * jnp.array(g, jnp.complex64)
    delta, _ = fs.sam(0.5).update(g, fs.sam(0.5).init(g))
    assert delta.dtype == jnp.complex64
    np.testing.assert_allclose(delta, expected, rtol=1e-5)


def test_norms_and_products_are_those_of_the_parts():
  tree = {"z": jnp.array([3 + 4j, 0, -12j]), "x": jnp.array([84.0])}
  assert tree_norm(tree) == plain_norm(tree) == 85
  other = {"z": jnp.array([2 - 1j, 7, 1j]), "x": jnp.array([1.0])}
  assert tree_dot(tree, other) == 3 * 2 - 4 - 12 + 84
  assert tree_dot(tree, other).dtype == jnp.float32


def test_a_random_direction_is_uniform_over_all_parts():
  """Every part has variance 1, in real and in complex arrays alike."""
  params = {"z": jnp.zeros(20000, jnp.complex64), "x": jnp.zeros(20000)}
  transform = fs.gaussian_direction(0)
  noise, _ = transform.update(params, transform.init(params))
  for part in (noise["z"].real, noise["z"].imag, noise["x"]):
    np.testing.assert_allclose(np.std(part), 1, atol=0.03)
  assert abs(np.mean(noise["z"].real * noise["z"].imag)) < 0.03
  transform = fs.random_perturbation(0.5, seed=0)
  delta, _ = transform.update(params, transform.init(params))
  np.testing.assert_allclose(tree_norm(delta), 0.5, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(ASAM))
def test_a_magnitude_with_two_meanings_is_refused(name):
  w = jnp.array([1 + 1j])
  transform = GRADIENTS[name](0.1)
  with pytest.raises(ValueError, match=r"complex64.*split_real_and_imaginary"):
    transform.update(w, transform.init(w), w, grad_fn=lambda p: p)
  # ... and the remedy takes the parts'.
  perturbation = optax.contrib.split_real_and_imaginary(fs.asam(1.0))
  w = jnp.array([2 + 1j])
  g = jnp.array([1.5 + 4j])  # |w| g = (3, 4)
  delta, _ = perturbation.update(g, perturbation.init(w), w)
  np.testing.assert_allclose(delta, [1.2 + 0.8j], rtol=1e-6)


PARAMS = {"w": jnp.array([[1 - 2j, 0.5j], [0.3, -1 + 1j]]), "b": jnp.ones(2)}
IMAGES = jax.random.normal(jax.random.key(0), (8, 2))
BATCH = {"image": IMAGES, "label": jnp.arange(8) % 2}


def in_parts(params):
  return {
    "w": {"re": params["w"].real, "im": params["w"].imag},
    "b": params["b"],
  }


def whole(parts):
  return {
    "w": jax.lax.complex(parts["w"]["re"], parts["w"]["im"]),
    "b": parts["b"],
  }


def forward(params, model_state, images, *, train, key):
  z = images.astype(jnp.complex64) @ params["w"]
  # Not analytic, so that a gradient differs from its conjugate.
  return z.real * params["b"] + jnp.square(z.imag) - z.real**2, model_state


def forward_of_parts(parts, model_state, images, *, train, key):
  return forward(whole(parts), model_state, images, train=train, key=key)


def loss(params):
  logits, _ = forward(params, {}, IMAGES, train=True, key=None)
  return fs.softmax_cross_entropy()(logits, BATCH["label"])


def perturbed(name):
  if name != "only":
    return GRADIENTS[name](0.3)
  mask = {"w": True, "b": False}  # a prefix of the parts' tree
  return fs.perturbed_gradient(fs.only(fs.sam(0.3), mask))


# Norms of single arrays, and what is drawn for them, differ from their parts'.
OF_ARRAYS = {
  *("asam_layerwise", "layer_sam", "look_layer_sam", "look_sam_per_array"),
  *("eigen_sam", "random_mask", "esam", "esam_official"),
}
CHAINS = {"lookbehind", "slow_weights"}
OF_PARTS = sorted(set(GRADIENTS) - OF_REAL - RANDOM - OF_ARRAYS - CHAINS)
METHODS = (PERTURBING_METHODS | GRADIENT_METHODS).keys()


@functools.cache
def after_three_steps(complex_numbers, methods):
  """Many transforms in one program, where JAX stops at any nan."""
  objective = loss if complex_numbers else lambda parts: loss(whole(parts))
  start = PARAMS if complex_numbers else in_parts(PARAMS)
  of_kind = [n for n in OF_PARTS if (n in METHODS) == methods]
  transforms = {name: perturbed(name) for name in of_kind}

  @jax.jit
  def steps(carries):
    return {
      name: step(transform, objective, *carries[name])
      for name, transform in transforms.items()
    }

  carries = {name: (start, init(t, start)) for name, t in transforms.items()}
  with jax.debug_nans(True):
    for _ in range(3):
      carries = steps(carries)
  return carries


@pytest.mark.parametrize("name", names(OF_PARTS))
def test_three_steps_are_those_of_the_parts(name):
  params, (state, _) = after_three_steps(True, name in METHODS)[name]
  parts, (expected, _) = after_three_steps(False, name in METHODS)[name]
  np.testing.assert_allclose(params["w"], whole(parts)["w"], rtol=1e-4)
  np.testing.assert_allclose(params["b"], parts["b"], rtol=1e-4)
  assert np.abs(params["w"] - PARAMS["w"]).max() > 1e-2
  for value in ("perturbed_loss", "perturbation_norm"):
    np.testing.assert_allclose(
      getattr(state, value), getattr(expected, value), rtol=1e-4
    )


def train(forward, params, perturb, mesh):
  optimizer = fs.sgdw(0.1)
  step = fs.make_train_step(
    forward,
    loss=fs.softmax_cross_entropy(),
    ascent=fs.output_bias_forgetting(),
    optimizer=optimizer,
    perturb=perturb,
    micro_batch_size=2,
    mesh=mesh,
  )
  state = fs.create_train_state(params, {}, optimizer, perturb, mesh)
  for _ in range(2):
    state, metrics = step(state, BATCH, jax.random.key(1))
  assert metrics["skipped"] == 0
  return state.params, metrics


def test_a_train_step_is_that_of_the_parts():
  """With a complex state, which micro-batches and devices average."""
  perturb = fs.perturbed_gradient(fs.friendly_sam(0.3), fs.surrogate_gap(0.3))
  mesh = data_mesh(2)
  params, metrics = train(forward, PARAMS, perturb, mesh)
  parts, expected = train(forward_of_parts, in_parts(PARAMS), perturb, mesh)
  np.testing.assert_allclose(params["w"], whole(parts)["w"], rtol=1e-4)
  np.testing.assert_allclose(params["b"], parts["b"], rtol=1e-4)
  assert np.abs(params["w"] - PARAMS["w"]).max() > 1e-2
  for key in expected:
    np.testing.assert_allclose(metrics[key], expected[key], rtol=1e-4)


def test_ones_own_loop_descends():
  ascent_and_descent = fs.ascent_and_descent(
    lambda p: forward(p, {}, IMAGES, train=True, key=None)[0],
    fs.softmax_cross_entropy(),
    fs.loss_ascent(fs.softmax_cross_entropy()),
  )
  ascent_grads, grad_fn, _ = ascent_and_descent(PARAMS, BATCH["label"])
  plain = jax.grad(
    lambda p: ascent_and_descent(whole(p), BATCH["label"])[2].loss
  )(in_parts(PARAMS))
  for grads in (ascent_grads, grad_fn(PARAMS)):
    np.testing.assert_allclose(grads["w"], whole(plain)["w"], rtol=1e-5)
