import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from sharpness.problems import PARAMS, STATE, batches_of, dense, forward

import forgetsam as fs
from forgetsam.sharpness import (
  average_sharpness,
  dataset_loss,
  extreme_eigenvalues,
  gradient_norm,
  layer_groups,
  m_sharpness,
  restrict,
  xtrace,
)

SOFTMAX = fs.softmax_cross_entropy()
KEY = jax.random.key(0)
LOSS = dataset_loss(forward, SOFTMAX, STATE, batches_of(8))


def test_groups_are_modules():
  groups = layer_groups(PARAMS)
  assert groups == {
    "body": {
      "body": {"bias": True, "kernel": True},
      "head": {"bias": False, "kernel": False},
    },
    "head": {
      "body": {"bias": False, "kernel": False},
      "head": {"bias": True, "kernel": True},
    },
  }
  assert list(layer_groups(PARAMS, depth=2)) == [
    "body/bias",
    "body/kernel",
    "head/bias",
    "head/kernel",
  ]
  assert list(layer_groups([1.0, 2.0])) == ["0", "1"]
  with pytest.raises(ValueError, match="depth=0"):
    layer_groups(PARAMS, depth=0)


@pytest.mark.parametrize(
  ("group", "kind"), [("body", "hessian"), ("head", "gauss_newton")]
)
def test_a_group_is_a_diagonal_block(group, kind):
  mask = layer_groups(PARAMS)[group]
  inside = np.asarray(
    ravel_pytree(
      jax.tree.map(lambda keep, x: np.full(x.shape, keep), mask, PARAMS)
    )[0]
  )
  loss, chosen = restrict(LOSS, PARAMS, mask)
  exact = dense(SOFTMAX)
  np.testing.assert_allclose(
    gradient_norm(loss, chosen),
    np.linalg.norm(exact.gradient[inside]),
    rtol=1e-4,
  )
  block = np.asarray(getattr(exact, kind), np.float64)[np.ix_(inside, inside)]
  of_loss = getattr(loss, f"{kind}_vector_product")
  matvec = lambda v: of_loss(chosen, v)  # noqa: E731
  found = extreme_eigenvalues(matvec, chosen, KEY)
  np.testing.assert_allclose(
    found.largest[0], np.linalg.eigvalsh(block)[-1], rtol=1e-4
  )
  trace = xtrace(matvec, chosen, KEY, num_samples=20)
  np.testing.assert_allclose(trace.value, np.trace(block), rtol=1e-4)


def test_balls_of_a_group_move_the_group_alone():
  seen = []

  def watched(params):
    seen.append(params)
    return LOSS.value(params)

  mask = layer_groups(PARAMS)["head"]
  loss, chosen = restrict(LOSS._replace(value=watched), PARAMS, mask)
  average_sharpness(loss, chosen, 0.2, KEY, num_samples=2)
  lengths = []
  for params in seen:
    delta = jax.tree.map(lambda x, w: x - w, params, PARAMS)
    assert all(not np.any(x) for x in jax.tree.leaves(delta["body"]))
    lengths.append(np.linalg.norm(ravel_pytree(delta["head"])[0]))
  np.testing.assert_allclose(lengths, [0, 0.2, 0.2, 0.2, 0.2], rtol=1e-5)
  m = m_sharpness(loss, chosen, 0.2).value
  assert 0 < m < m_sharpness(LOSS, PARAMS, 0.2).value


def test_errors():
  with pytest.raises(ValueError, match="structure"):
    restrict(LOSS, PARAMS, {"body": True, "head": False})
  nothing = jax.tree.map(lambda x: False, PARAMS)
  with pytest.raises(ValueError, match="at least one array"):
    restrict(LOSS, PARAMS, nothing)
