"""Methods where gradients vanish, numbers are wide or narrow, or arguments bad.

Their values are those of `test_peer_traces.py`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import forgetsam as fs

PERTURBATIONS = {
  "layerwise asam": fs.asam(0.5, layerwise=True),
  "linf asam": fs.asam(0.5, eta=0.1, norm="linf"),
  "radius with eps": fs.scale_to_radius(0.5, eps=1e-7),
  "vasso": fs.vasso(0.5),
  "fisher": fs.fisher_sam(0.5, eta=10.0),
  "gc_sam": fs.gc_sam(0.1),
  "le_sam": fs.le_sam(9.0, sigma=0.1),
  "le_sam, adaptive": fs.le_sam(9.0, sigma=0.1, adaptive=True),
  "unified_sam": fs.unified_sam(0.1, 0.5),
  "zsharp": fs.zsharp(0.1, 0.5),
  "zsharp, per array": fs.zsharp(0.1, 0.5, per_array=True),
  "sparse_sam": fs.sparse_sam(0.1, "dynamic"),
}
W = {"w": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "b": jnp.array([1.0, 0.0])}
G = {"w": jnp.array([[0.5, 1.0], [0.0, -1.0]]), "b": jnp.array([2.0, 1.0])}


def offset(perturbation, g, w=W):
  return perturbation.update(g, perturbation.init(w), w)[0]


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_a_gradient_of_zero_gives_no_offset(name):
  delta = offset(PERTURBATIONS[name], jax.tree.map(jnp.zeros_like, G))
  for x in jax.tree.leaves(delta):
    np.testing.assert_array_equal(x, 0)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_the_fisher_metric_holds_where_squares_leave_the_range(scale):
  g = jnp.array([3.0, 4.0]) * scale
  delta = offset(fs.fisher_sam(1.0, eta=1.0), g, g)
  # f -> 1, and f g -> 1 / g with sqrt(sum f g^2) -> sqrt(2)
  wanted = [0.6, 0.8] if scale < 1 else np.sqrt(0.5) / np.asarray(g)
  np.testing.assert_allclose(delta, wanted, rtol=1e-4)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_bfloat16_is_rounded_at_the_end_alone(name):
  narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (G, W))
  wide = jax.tree.map(lambda x: x.astype(jnp.float32), narrow)
  delta = offset(PERTURBATIONS[name], *narrow)
  wanted = offset(PERTURBATIONS[name], *wide)
  for x, y in zip(jax.tree.leaves(delta), jax.tree.leaves(wanted), strict=True):
    assert x.dtype == jnp.bfloat16
    np.testing.assert_allclose(x.astype(jnp.float32), y, rtol=0.02)


@pytest.mark.parametrize(
  "perturbation",
  [
    fs.scale_to_radius(0.5, norm="linf"),
    fs.asam(0.5, layerwise=True),
    fs.vasso(0.5),
    fs.fisher_sam(0.5, eta=10.0),
  ],
)
def test_a_complex_number_is_its_two_parts(perturbation):
  g, w = jnp.array([3.0, -4.0, 0.0, 1.0]), jnp.array([1.0, 2.0, 0.5, 1.0])
  pair = lambda x: jax.lax.complex(x[:2], x[2:])  # noqa: E731
  delta = offset(perturbation, pair(g), pair(w))
  np.testing.assert_allclose(delta, pair(offset(perturbation, g, w)), rtol=1e-6)


@pytest.mark.parametrize(
  ("make", "said"),
  [
    (lambda: fs.vasso(0.1, theta=0), "theta=0"),
    (lambda: fs.vasso(0.1, theta=1.5), r"theta=1\.5 .* \[0, 1\]"),
    (lambda: fs.moving_average(1.0), r"decay=1\.0 .* \[0, 1\)"),
    (lambda: fs.fisher_sam(0.1, eta=-1), "eta=-1"),
    (lambda: fs.fisher_sam(-0.1), r"rho=-0\.1"),
    (lambda: fs.scale_to_radius(0.1, eps=-1), "eps=-1"),
    (lambda: fs.scale_to_radius(0.1, 1e-7, norm="linf"), "eps=1e-07"),
    (lambda: fs.asam(0.1, norm="l1"), "norm='l1'"),
    (lambda: fs.gnp(-0.5), r"alpha=-0\.5"),
    (lambda: fs.decoupled_wsam(optax.sgd(0.1), 0.1, 1.0), r"gamma=1\.0"),
    (lambda: fs.surrogate_gap(0.1, minimize="both"), "minimize='both'"),
    (lambda: fs.surrogate_gap(0.1, True, "clean"), "normalized=True"),
    (lambda: fs.look_sam(fs.sam(0.1), 2, 0.5, eps=-1), "eps=-1"),
  ],
)
def test_bad_arguments_are_refused(make, said):
  with pytest.raises(ValueError, match=said):
    make()


def test_rules_are_finite_where_the_clean_gradient_vanishes():
  zeros, p = jnp.zeros(2), jnp.array([1.0, 2.0])
  for rule in (fs.gnp(0.5), fs.gnp(0.5, normalized=True)):
    np.testing.assert_allclose(rule(zeros, zeros, p), p / 2)
  rule = fs.surrogate_gap(0.5, minimize="clean")
  np.testing.assert_allclose(rule(zeros, zeros, p), p / 2)


def test_decoupled_wsam_under_partition_and_without_its_gradient():
  optimizer = optax.partition(
    {
      "trained": fs.decoupled_wsam(optax.sgd(0.1), 0.1, 0.75),
      "frozen": optax.set_to_zero(),
    },
    {"w": "trained", "b": "frozen"},
  )
  perturbed = jax.tree.map(lambda g: 2 * g, G)
  updates, _ = optimizer.update(perturbed, optimizer.init(W), W, clean_grads=G)
  np.testing.assert_array_equal(updates["b"], 0)
  np.testing.assert_allclose(updates["w"], -0.1 * (1 + 3) * G["w"], rtol=1e-6)
  alone = fs.decoupled_wsam(optax.sgd(0.1), 0.1)
  with pytest.raises(ValueError, match=r"clean_grads=.*make_train_step"):
    alone.update(G, alone.init(W), W)


def test_decoupled_wsam_follows_a_schedule():
  rates = optax.linear_schedule(0.1, 0.0, 1)
  optimizer = fs.decoupled_wsam(optax.set_to_zero(), rates, 0.5)
  state, found = optimizer.init(W), []
  for _ in range(2):
    updates, state = optimizer.update(
      G, state, W, clean_grads=jax.tree.map(jnp.zeros_like, G)
    )
    found.append(float(updates["b"][0]))
  np.testing.assert_allclose(found, [-0.2, 0.0])
