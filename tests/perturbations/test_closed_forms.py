"""Every perturbation on the quadratic 1/2 w'Aw, where all is known.

There the gradient at w is Aw, and a perturbed gradient is A(w + delta).
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import forgetsam as fs
from forgetsam._checks import check_rho, check_seed

A = np.array([[3.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 1.0]])
W = np.array([1.0, -2.0, 0.5])
G = A @ W
RHO = 0.7


def tree(w):
  """The vector as two arrays, to catch norms taken per array."""
  return {
    "a": jnp.asarray(w[:1], jnp.float32),
    "b": jnp.asarray(w[1:], jnp.float32),
  }


def vector(params):
  return np.concatenate([params["a"], params["b"]])


def grad_fn(params):
  return tree_of(jnp.asarray(A, jnp.float32) @ flat(params))


def flat(params):
  return jnp.concatenate([params["a"], params["b"]])


def tree_of(w):
  return {"a": w[:1], "b": w[1:]}


def perturbed(perturbation, combine=None, ascent_grads=None):
  transform = fs.perturbed_gradient(perturbation, combine)
  params = tree(W)
  grads, state = transform.update(
    tree(G) if ascent_grads is None else ascent_grads,
    transform.init(params),
    params,
    grad_fn=grad_fn,
  )
  return vector(grads), state


def norm(x):
  return np.sqrt(np.sum(np.square(x)))


def test_sam():
  grads, state = perturbed(fs.sam(RHO))
  np.testing.assert_allclose(grads, A @ (W + RHO * G / norm(G)), rtol=1e-5)
  np.testing.assert_allclose(state.perturbation_norm, RHO, rtol=1e-6)
  assert state.perturbed_loss == 0  # grad_fn alone does not know it


@pytest.mark.parametrize("eta", [0.0, 0.3])
@pytest.mark.parametrize("magnitude", ["before", "after", "both"])
def test_asam(magnitude, eta):
  t = np.abs(W) + eta
  delta = {
    "before": t * G / norm(t * G),
    "after": t * G / norm(G),
    "both": t * t * G / norm(t * G),
  }[magnitude]
  grads, _ = perturbed(fs.asam(RHO, eta, magnitude))
  np.testing.assert_allclose(grads, A @ (W + RHO * delta), atol=1e-5)


def test_asam_is_both_and_eta_zero_by_default():
  t = np.abs(W)
  grads, _ = perturbed(fs.asam(RHO))
  delta = t * t * G / norm(t * G)
  np.testing.assert_allclose(grads, A @ (W + RHO * delta), atol=1e-5)


@pytest.mark.parametrize("normalized", [False, True])
def test_gsam(normalized):
  alpha = 0.4
  # An ascent gradient that is not the loss's, as in OBF.
  ascent = np.array([0.3, -1.0, 2.0])
  delta = RHO * ascent / norm(ascent)
  g_p = A @ (W + delta)
  a = ascent / norm(ascent) if normalized else ascent
  unit = g_p / norm(g_p)
  expected = g_p - alpha * (a - (a @ unit) * unit)
  grads, _ = perturbed(
    fs.sam(RHO), fs.surrogate_gap(alpha, normalized), tree(ascent)
  )
  np.testing.assert_allclose(grads, expected, rtol=1e-5)
  # Orthogonal: what GSAM adds does not slow the descent of the perturbed loss.
  np.testing.assert_allclose((grads - g_p) @ g_p, 0, atol=1e-5)


def test_gsam_with_a_zero_offset_is_the_perturbed_gradient():
  grads, _ = perturbed(fs.sam(0.0), fs.surrogate_gap(0.4, normalized=True))
  np.testing.assert_allclose(grads, G, rtol=1e-6)


NOISES = pytest.mark.parametrize("noise", ["drawn", "table"])


def random_delta(seed, noise="drawn", *, count=0, micro_batch=0):
  perturbation = fs.random_perturbation(RHO, seed, noise)
  params = tree(W)
  state = perturbation.init(params)
  for _ in range(count + 1):
    delta, state = perturbation.update(
      tree(G), state, params, micro_batch=micro_batch
    )
  return vector(delta)


@NOISES
def test_random_has_norm_rho_and_repeats_with_the_seed_alone(noise):
  delta = random_delta(0, noise)
  np.testing.assert_allclose(norm(delta), RHO, rtol=1e-6)
  np.testing.assert_array_equal(delta, random_delta(0, noise))
  others = [
    random_delta(1, noise),
    random_delta(0, noise, count=1),
    random_delta(0, noise, micro_batch=1),
    random_delta(0, noise, count=1, micro_batch=1),
  ]
  for i, one in enumerate([delta, *others]):
    for other in others[i:]:
      assert np.abs(one - other).max() > 1e-3
  # delta = 0 would be found by its norm; equal noise for all arrays, here:
  assert len(set(np.round(delta, 5))) == 3


@NOISES
def test_random_directions_are_gaussian(noise):
  transform = fs.gaussian_direction(3, noise)
  g = {"x": jnp.zeros((100, 100)), "y": jnp.zeros((100, 100))}
  drawn, state = transform.update(g, transform.init(g))
  after, _ = transform.update(g, state)
  x, y, later = map(np.ravel, (drawn["x"], drawn["y"], after["x"]))
  # Six standard errors of 10,000 draws.
  assert abs(x.mean()) < 0.06
  assert abs(x.var() - 1) < 0.085
  assert abs(np.mean(x**4) - 3) < 0.6
  assert abs(np.mean(x * y)) < 0.06
  assert abs(np.mean(x * later)) < 0.06


def test_tables_serve_every_kind_of_array():
  transform = fs.gaussian_direction(3, "table")
  g = {
    "b": jnp.zeros((), jnp.bfloat16),
    "c": jnp.zeros((30, 50), jnp.complex64),
    "n": jnp.zeros((0, 3)),
  }
  noise, _ = transform.update(g, transform.init(g))
  assert jax.tree.map(jnp.shape, noise) == jax.tree.map(jnp.shape, g)
  assert {k: x.dtype for k, x in noise.items()} == {
    k: x.dtype for k, x in g.items()
  }
  for part in (noise["c"].real, noise["c"].imag):
    assert abs(part.var() - 1) < 0.22  # six standard errors
  assert abs(jnp.mean(noise["c"].real * noise["c"].imag)) < 0.16
  with pytest.raises(ValueError, match=r"noise='tables'.*table"):
    fs.gaussian_direction(3, "tables")


def test_tables_lend_their_numbers_with_both_signs():
  transform = fs.gaussian_direction(3, "table")
  state = transform.init(jnp.zeros(8))
  table = jax.lax.bitcast_convert_type(state.tables, jnp.float32)
  parts = np.lib.stride_tricks.sliding_window_view(np.asarray(table), 8)
  places, signs = set(), set()
  for i in range(12):
    noise, _ = transform.update(jnp.zeros(8), state, micro_batch=i)
    ((place, sign),) = [
      (int(place), sign)
      for sign in (1, -1)
      for place in np.flatnonzero((sign * noise == parts).all(axis=1))
    ]
    places.add(place)
    signs.add(sign)
  assert signs == {1, -1}
  assert len(places) > 6


@NOISES
def test_noise_of_an_array_does_not_depend_on_the_others(noise):
  transform = fs.gaussian_direction(3, noise)
  both = {"x": jnp.zeros(4), "y": jnp.zeros(4)}
  whole, _ = transform.update(both, transform.init(both))
  one = {"y": jnp.zeros(4)}
  alone, _ = transform.update(one, transform.init(one))
  np.testing.assert_array_equal(whole["y"], alone["y"])
  restricted = fs.only(transform, {"x": False, "y": True})
  masked, _ = restricted.update(both, restricted.init(both))
  np.testing.assert_array_equal(whole["y"], masked["y"])


@pytest.mark.parametrize(
  "mask",
  [{"a": False, "b": True}, lambda p: jax.tree.map(lambda w: w.size > 1, p)],
)
def test_only_leaves_other_arrays_at_exactly_zero(mask):
  perturbation = fs.only(fs.sam(RHO), mask)
  params = tree(W)
  delta, _ = perturbation.update(tree(G), perturbation.init(params), params)
  np.testing.assert_array_equal(delta["a"], 0)
  np.testing.assert_allclose(delta["b"], RHO * G[1:] / norm(G[1:]), rtol=1e-6)


def test_masked_would_move_the_others_by_their_gradient():
  """The trap that `only` is there to avoid."""
  mask = {"a": False, "b": True}
  perturbation = optax.masked(fs.sam(RHO), mask)
  params = tree(W)
  delta, _ = perturbation.update(tree(G), perturbation.init(params), params)
  np.testing.assert_allclose(delta["a"], G[:1], rtol=1e-6)


def test_only_gives_gradient_functions_the_chosen_arrays():
  seen = {}

  def update(
    updates, state, params, *, grad_fn, value_and_grad_fn, ascent_fn, **_
  ):
    moved = jax.tree.map(lambda w: w + 1, params)
    seen["structure"] = jax.tree.structure(moved)
    seen["grad"] = grad_fn(moved)
    seen["value"], seen["value_grad"] = value_and_grad_fn(moved)
    seen["ascent"] = ascent_fn(moved)
    return updates, state

  spy = optax.GradientTransformationExtraArgs(lambda _: (), update)
  transform = fs.perturbed_gradient(fs.only(spy, {"a": False, "b": True}))
  params = tree(W)
  transform.update(
    tree(G),
    transform.init(params),
    params,
    grad_fn=grad_fn,
    value_and_grad_fn=lambda p: (jnp.sum(flat(p)), grad_fn(p)),
    ascent_fn=lambda p: jax.tree.map(lambda w: 2 * w, p),
  )
  moved = W + np.array([0, 1, 1])
  assert seen["structure"].num_leaves == 1
  for gradient in ("grad", "value_grad", "ascent"):
    assert jax.tree.structure(seen[gradient]) == seen["structure"]
  np.testing.assert_allclose(seen["grad"]["b"], (A @ moved)[1:], rtol=1e-6)
  np.testing.assert_allclose(
    seen["value_grad"]["b"], (A @ moved)[1:], rtol=1e-6
  )
  np.testing.assert_allclose(seen["value"], moved.sum(), rtol=1e-6)
  np.testing.assert_allclose(seen["ascent"]["b"], 2 * moved[1:], rtol=1e-6)


NESTED = {
  "a": {"k": jnp.array([3.0]), "b": jnp.array([1.0])},
  "c": {"k": jnp.array([4.0])},
}
KERNELS = {"a": {"k": True, "b": False}, "c": {"k": True}}
ONLY_C = {"a": False, "c": True}  # a prefix


@pytest.mark.parametrize(
  "perturbation",
  [
    fs.only(fs.only(fs.sam(2.0), KERNELS), ONLY_C),
    fs.only(fs.only(fs.sam(2.0), ONLY_C), KERNELS),
    fs.only(
      optax.partition(
        {"x": fs.sam(2.0), "y": fs.sam(1.0)},
        {"a": {"k": "x", "b": "y"}, "c": {"k": "x"}},
      ),
      ONLY_C,
    ),
    optax.partition(
      {"x": fs.only(fs.sam(2.0), KERNELS), "y": optax.set_to_zero()},
      {"a": "y", "c": "x"},
    ),
  ],
)
def test_masks_nest_and_may_be_prefixes(perturbation):
  delta, _ = perturbation.update(NESTED, perturbation.init(NESTED), NESTED)
  expected = jax.tree.map(jnp.zeros_like, NESTED)
  expected["c"]["k"] = jnp.array([2.0])
  assert jax.tree.structure(delta) == jax.tree.structure(expected)
  for actual, value in zip(
    jax.tree.leaves(delta), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(actual, value)


def test_only_refuses_masks_that_do_not_fit():
  params = tree(W)
  with pytest.raises(ValueError, match="must be booleans"):
    fs.only(fs.sam(1.0), {"a": 1, "b": 0}).init(params)
  for mask in ({"a": True}, {"a": True, "b": {"c": True}}):
    with pytest.raises(ValueError, match="mask does not fit params"):
      fs.only(fs.sam(1.0), mask).init(params)


def test_rho_may_be_a_schedule_of_the_update_count():
  perturbation = fs.sam(lambda count: 1.0 + count)
  state = perturbation.init(tree(W))
  for t in range(3):
    delta, state = perturbation.update(tree(G), state)
    np.testing.assert_allclose(norm(vector(delta)), 1.0 + t, rtol=1e-6)


def test_pieces_and_users_transforms_chain():
  perturbation = optax.chain(
    optax.clip(1.0), fs.scale_by_magnitude(0.1), fs.scale_to_radius(RHO)
  )
  g = (np.abs(W) + 0.1) * np.clip(G, -1, 1)
  grads, _ = perturbed(perturbation)
  np.testing.assert_allclose(grads, A @ (W + RHO * g / norm(g)), rtol=1e-5)


@pytest.mark.parametrize("bad", [-0.1, float("nan"), float("inf")])
@pytest.mark.parametrize(
  "factory",
  [
    fs.sam,
    fs.scale_to_radius,
    fs.asam,
    lambda rho: fs.random_perturbation(rho, 0),
  ],
)
def test_an_impossible_rho_is_refused(factory, bad):
  with pytest.raises(ValueError, match=f"rho={bad}"):
    factory(bad)


@pytest.mark.parametrize("bad", ["x", None])
def test_what_is_no_radius_at_all_is_refused(bad):
  # Directly: the run-time type checks of the tests would refuse it earlier.
  with pytest.raises(ValueError, match="must be a number or a schedule"):
    check_rho("rho", bad)


def test_other_impossible_hyper_parameters_are_refused():
  with pytest.raises(ValueError, match="eta=-1"):
    fs.asam(0.1, eta=-1)
  with pytest.raises(ValueError, match="'before', 'after', 'both'"):
    fs.asam(0.1, magnitude="around")
  with pytest.raises(ValueError, match="alpha=nan"):
    fs.surrogate_gap(float("nan"))
  perturbation = fs.asam(0.1)
  state = perturbation.init(tree(W))
  with pytest.raises(ValueError, match="needs params"):
    perturbation.update(tree(G), state)


@pytest.mark.parametrize(
  "factory",
  [fs.gaussian_direction, lambda seed: fs.random_perturbation(RHO, seed)],
)
@pytest.mark.parametrize("seed", [2**32, 2**32 + 7, -1])
def test_seeds_that_jax_folds_are_refused(factory, seed):
  with pytest.raises(ValueError, match=rf"seed=.*{seed}.*below 2\*\*32"):
    factory(seed)


def test_a_folded_seed_in_an_array_is_refused():
  # Directly: the run-time type checks of the tests would refuse it earlier.
  with pytest.raises(ValueError, match=r"seed=array.*below 2\*\*32"):
    check_seed("seed", np.array([1, 2**32]))


@pytest.mark.parametrize("seeds", [(7, 2**32 - 1), (7, jnp.array(8))])
def test_seeds_have_keys_of_their_own(seeds):
  g = jnp.zeros(3)
  first, second = (
    fs.gaussian_direction(seed).update(g, fs.gaussian_direction(seed).init(g))[
      0
    ]
    for seed in seeds
  )
  assert np.abs(first - second).max() > 1e-3
