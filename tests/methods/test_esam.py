"""ESAM's pieces: random masks, and the choice of the sharpest examples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import forgetsam as fs

X = jnp.array([1.0, 3.0, 2.0, 1.0])
W = jnp.array(1.0)


def losses_fn(w):
  return 0.5 * (X * w) ** 2


def grad_fn(w):
  return jax.grad(lambda p: jnp.mean(losses_fn(p)))(w)


def descended(rule, **extra):
  transform = fs.perturbed_gradient(fs.sam(1.0), rule)
  arguments = {"grad_fn": grad_fn, "losses_fn": losses_fn, **extra}
  return transform.update(grad_fn(W), transform.init(W), W, **arguments)[0]


@pytest.mark.parametrize(
  ("fraction", "strict", "chosen"),
  [
    (0.25, False, [3.0]),
    (0.5, False, [3.0, 2.0]),
    (0.5, True, [3.0]),
    (0.7, False, [3.0, 2.0]),
    (0.75, True, [3.0, 2.0]),  # the third and the fourth are alike
    (1.0, True, [1.0, 3.0, 2.0, 1.0]),
  ],
)
def test_the_losses_that_rise_most_are_descended(fraction, strict, chosen):
  grads = descended(fs.sharpest_examples(fraction, strict))
  wanted = 2 * np.mean(np.square(chosen))  # of x^2 w at w = 2
  np.testing.assert_allclose(grads, wanted, rtol=1e-6)


def test_a_choice_that_cannot_be_made_is_refused():
  for fraction in (0, 1.5, jnp.array(0.5)):
    with pytest.raises(ValueError, match=r"fraction="):
      fs.sharpest_examples(fraction)
  with pytest.raises(ValueError, match=r"fraction=0\.2 keeps none of 4"):
    descended(fs.sharpest_examples(0.2))
  with pytest.raises(ValueError, match=r"0\.25 keeps none of 4 .* leaves out"):
    descended(fs.sharpest_examples(0.25, strict=True))
  with pytest.raises(ValueError, match=r"needs losses_fn.*make_train_step"):
    descended(fs.sharpest_examples(0.5), losses_fn=None)
  for beta in (0, 1.5):
    with pytest.raises(ValueError, match="beta="):
      fs.esam(0.1, seed=0, beta=beta)


def drawn(mask, tree, count=0, micro_batch=0):
  state = mask.init(tree)._replace(count=jnp.asarray(count, jnp.int32))
  return mask.update(tree, state, micro_batch=micro_batch)[0]


def test_masks_are_drawn_anew_and_by_path():
  mask = fs.random_mask(0.3, seed=1)
  tree = {"a": jnp.ones(4000), "b": jnp.ones(4000)}
  first = drawn(mask, tree)
  assert first["a"].dtype == bool
  np.testing.assert_allclose(jnp.mean(first["a"]), 0.3, atol=0.03)
  later, beside = drawn(mask, tree, 1), drawn(mask, tree, micro_batch=1)
  for other in (later["a"], beside["a"], first["b"]):
    np.testing.assert_allclose(jnp.mean(first["a"] & other), 0.09, atol=0.03)
  alone = drawn(mask, {"a": tree["a"]})
  np.testing.assert_array_equal(alone["a"], first["a"])
  whole = drawn(fs.random_mask(0.5, seed=1, of="arrays"), tree)
  assert whole["a"].shape == ()
  everything = drawn(fs.random_mask(1.0, seed=1), tree)
  assert everything["a"].all()
  assert not drawn(fs.random_mask(0.0, seed=1), tree)["a"].any()
  for arguments, said in [
    ((1.5, 0), "probability=1.5"),
    ((0.5, -1), "seed=-1"),
    ((0.5, 0, "rows"), "of='rows'"),
  ]:
    with pytest.raises(ValueError, match=said):
      fs.random_mask(*arguments)


@pytest.mark.parametrize("official", [False, True])
def test_the_norm_runs_over_all_weights_or_over_those_that_are_kept(official):
  g = jnp.array([3.0, 4.0])
  rho, beta = 1.0, 0.5
  mask = fs.random_mask(0.0, seed=0)._replace(
    update=lambda updates, state, params=None, **extra: (
      jnp.array([True, False]),
      state,
    )
  )
  transform = fs.esam(rho, 0, beta, gamma=1.0, official=official, mask=mask)
  # The gradient at w + delta is delta itself.
  delta, _ = transform.update(
    g,
    transform.init(g),
    jnp.zeros(2),
    grad_fn=lambda w: w,
    losses_fn=lambda w: w,
  )
  wanted = 2.0 if official else 2.0 * 0.6
  np.testing.assert_allclose(delta, [wanted, 0.0], rtol=1e-5)
