"""`factored_gradient`, for a loop of one's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import forgetsam as fs

LOSS, SIGNAL = fs.softmax_cross_entropy(), fs.output_bias_forgetting()
M, SIZE = 2, 8


def forward(params, model_state, x, *, train, key):
  keep = jax.random.bernoulli(key, 0.8, (len(x), 16))
  h = jnp.where(keep, jnp.tanh(x @ params["a"]), 0) @ params["c"]
  return h, {"seen": model_state["seen"] + 1}


def _gradient(perturb, **options):
  return fs.factored_gradient(
    forward,
    loss=LOSS,
    ascent=SIGNAL,
    perturb=perturb,
    micro_batch_size=M,
    **options,
  )


def _arguments():
  rng = np.random.RandomState(0)
  params = {
    "a": rng.randn(12, 16).astype(np.float32),
    "c": rng.randn(16, 5).astype(np.float32),
  }
  labels = jnp.asarray(rng.randint(0, 5, SIZE))
  return params, jnp.asarray(rng.randn(SIZE, 12), jnp.float32), labels


def _by_hand(perturb, params, x, y, key):
  """One micro-batch after another; keys fold in 0, the step, and its number."""
  key = jax.random.fold_in(key, 0)
  state, totals = perturb.init(params), []
  for i in range(SIZE // M):
    rows, drop = slice(M * i, M * i + M), jax.random.fold_in(key, i)

    def logits(p, rows=rows, drop=drop):
      start = {"seen": jnp.zeros(())}
      return forward(p, start, x[rows], train=True, key=drop)[0]

    ascend = fs.ascent_and_descent(logits, LOSS, SIGNAL)
    ascent, grad_fn, _ = ascend(params, y[rows])
    totals.append(perturb.update(ascent, state, params, grad_fn=grad_fn)[0])
  return jax.tree.map(lambda *g: sum(g) / len(g), *totals)


def test_gradient_is_that_of_a_loop_by_hand():
  perturb = fs.perturbed_gradient(fs.sam(0.3))
  params, x, y = _arguments()
  key = jax.random.key(3)
  found, state, aux = jax.jit(_gradient(perturb))(
    *(params, perturb.init(params), x, y, key),
    model_state={"seen": jnp.zeros(())},
  )
  expected = jax.jit(_by_hand, static_argnums=0)(perturb, params, x, y, key)
  for f, e in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
    np.testing.assert_allclose(f, e, atol=2e-6)
  assert float(state.perturbation_norm) == pytest.approx(0.3)
  assert float(aux.model_state["seen"]) == SIZE // M
  assert {"loss", "accuracy", "ascent_grad_norm"} <= aux.metrics.keys()


def test_what_it_cannot_do_is_refused():
  params, x, y = _arguments()
  perturb = fs.perturbed_gradient(fs.asam(0.3))
  arguments = params, perturb.init(params), x, y, jax.random.key(0)
  state = {"model_state": {"seen": jnp.zeros(())}}
  with pytest.raises(ValueError, match="entry by entry"):
    jax.eval_shape(lambda *a: _gradient(perturb)(*a, **state), *arguments)
  either = _gradient(perturb, m_sharpness="auto")
  jax.eval_shape(lambda *a: either(*a, **state), *arguments)


def test_arguments_are_checked():
  perturb = fs.perturbed_gradient(fs.sam(1.0))
  with pytest.raises(ValueError, match="micro_batch_size=0"):
    fs.factored_gradient(
      forward, loss=LOSS, perturb=perturb, micro_batch_size=0
    )
