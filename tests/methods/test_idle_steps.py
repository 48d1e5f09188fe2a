"""Steps that do not perturb leave the memory of a method as it was."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import forgetsam as fs
from forgetsam.methods._turns import is_turn, older

A = jnp.asarray(np.random.default_rng(0).normal(size=(8, 8)), jnp.float32)
H = A @ A.T
EXAMPLES = jnp.asarray(np.random.default_rng(1).normal(size=(5, 8)))
METHODS = {
  "vasso": fs.vasso(1.0, 0.4),
  "friendly_sam": fs.friendly_sam(1.0),
  # Converged: the vector that it starts from goes by the clock.
  "eigen_sam": fs.eigen_sam(1.0, 0.5, freq=2, steps=200),
  "fisher": fs.sparse_sam(1.0, "fisher", 0.5, every=3),
  "fisher, late": fs.sparse_sam(
    1.0, fs.fisher_mask(0.5, every=2, start=1, fisher=lambda w, **extra: w**2)
  ),
  "dynamic": fs.sparse_sam(
    1.0, fs.dynamic_mask(0.5, every=2, growth="gradient")
  ),
}


def losses_fn(w):
  return (EXAMPLES @ w) ** 2


def loss_fn(w):
  return 0.5 * w @ H @ w


def points(steps):
  return [jnp.cos(jnp.arange(8.0) * (t + 1)) for t in range(steps)]


def offsets(perturbation, at):

  @jax.jit
  def update(w, state):
    return perturbation.update(
      grad_fn(w),
      state,
      w,
      grad_fn=grad_fn,
      ascent_fn=grad_fn,
      losses_fn=losses_fn,
    )

  grad_fn = jax.grad(loss_fn)
  state, deltas = perturbation.init(at[0]), []
  for w in at:
    delta, state = update(w, state)
    deltas.append(np.asarray(delta))
  return np.array(deltas)


@pytest.mark.parametrize("start", [1, 2, 3])
@pytest.mark.parametrize("method", METHODS)
def test_a_method_begins_with_its_first_active_step(method, start):
  at = points(start + 6)
  late = offsets(fs.active_between(METHODS[method], start), at)
  np.testing.assert_array_equal(late[:start], 0)
  fresh = offsets(METHODS[method], at[start:])
  np.testing.assert_allclose(late[start:], fresh, rtol=1e-3, atol=1e-4)


def test_idle_steps_take_no_fisher_information():
  taken = []

  def fisher(w, **extra):
    jax.debug.callback(lambda: taken.append(1))
    return w**2

  mask = fs.fisher_mask(0.5, every=2, fisher=fisher)
  offsets(fs.active_between(fs.sparse_sam(1.0, mask), 4), points(7))
  jax.effects_barrier()
  assert len(taken) == 2


def test_look_sam_renews_a_mask_every_so_many_perturbed_steps():
  mask = fs.dynamic_mask(0.5, every=2, growth="gradient")
  transform = fs.look_sam(fs.only(fs.sam(1.0), mask), k=2, alpha=0.5)
  grad_fn = jax.grad(loss_fn)
  w = jnp.ones(8)
  state, masks = transform.init(w), []
  for w in points(12):
    _, state = transform.update(grad_fn(w), state, w, grad_fn=grad_fn)
    masks.append(tuple(state.perturbation.perturbation.mask.mask.tolist()))
  # Perturbed are the steps 0, 2, 4, ...: the mask turns in the 2nd, 4th, 6th.
  changes = [t for t in range(1, 12) if masks[t] != masks[t - 1]]
  assert changes == [2, 6, 10]


def test_xsam_searches_where_there_is_an_offset():
  functions = jax.value_and_grad(lambda w: jnp.sum(w**4))

  def alphas(perturbation, steps):
    transform = fs.perturbed_gradient(
      perturbation, fs.xsam(0.5, points=5, update_every=3)
    )
    state, found = transform.init(jnp.ones(8)), []
    for w in points(steps):
      _, state = transform.update(
        functions(w)[1], state, w, value_and_grad_fn=functions
      )
      found.append(float(state.perturbation.combine.alpha))
    return found

  late = alphas(fs.active_between(fs.sam(0.1), 1), 5)
  assert late[0] == 0  # no search
  assert late[1] == late[2] == late[3] != 0  # of the second step


def test_ages_never_reach_what_float32_cannot_count():
  age, turns = jnp.asarray(-1.0), []
  for t in range(40):
    if is_turn(age, 7):
      turns.append(t)
    age = older(age, 7)
    assert age < 14
  assert turns == [1, 8, 15, 22, 29, 36]
  # A mean over micro-batches of which one was idle.
  assert is_turn(jnp.asarray(6.875), 7)


def test_freezing_with_optax_around_a_method_is_refused_by_name():
  w = {"a": jnp.ones(3), "b": jnp.ones(3)}
  labels = {"a": "moved", "b": "frozen"}
  grad_fn = jax.grad(lambda w: jnp.sum(w["a"] ** 2))
  for method in (fs.eigen_sam(1.0, 0.5), fs.sparse_sam(1.0, "fisher")):
    partition = optax.partition(
      {"moved": method, "frozen": optax.set_to_zero()}, labels
    )
    with pytest.raises(ValueError, match=r"_\w+ stands under .*partition"):
      partition.update(
        w,
        partition.init(w),
        w,
        grad_fn=grad_fn,
        losses_fn=lambda w: w["a"] ** 2,
      )


def test_an_information_of_ones_own_takes_what_optax_leaves():
  mask = fs.fisher_mask(
    0.5, every=1, fisher=lambda w, **_: jax.tree.map(jnp.square, w)
  )
  method = fs.sparse_sam(1.0, mask)
  partition = optax.partition(
    {"moved": method, "frozen": optax.set_to_zero()},
    {"a": "moved", "b": "frozen"},
  )
  w = {"a": jnp.array([1.0, -4.0, 2.0, 3.0]), "b": 9 * jnp.ones(3)}
  delta, _ = partition.update(w, partition.init(w), w)
  assert [x != 0 for x in delta["a"]] == [False, True, False, True]
  alone, _ = method.update(w["a"], method.init(w["a"]), w["a"])
  assert jnp.array_equal(delta["a"], alone)
  assert not delta["b"].any()
