"""LayerSAM's radii, array by array."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import forgetsam as fs

W = {"a": jnp.array([3.0, 4.0]), "b": jnp.zeros(2)}
G = {"a": jnp.array([0.6, 0.0]), "b": jnp.array([0.0, 0.8])}


@pytest.mark.parametrize(
  ("arguments", "lengths"),
  [
    ({}, (5.0, 0.0)),  # ||g|| is 1
    ({"max_ratio": 2.0}, (1.2, 0.0)),
    ({"max_ratio": None}, (5.0, 0.0)),
    ({"by_weights": False}, (1.0, 1.0)),
  ],
)
def test_every_array_has_a_radius(arguments, lengths):
  perturbation = fs.layer_sam(lambda t: 0.1 * (t + 1), **arguments)
  state = perturbation.init(W)
  for t in range(2):
    delta, state = perturbation.update(G, state, W)
    for name, length in zip("ab", lengths, strict=True):
      expected = 0.1 * (t + 1) * length * G[name] / np.linalg.norm(G[name])
      np.testing.assert_allclose(delta[name], expected, rtol=1e-6)
  zeros = jax.tree.map(jnp.zeros_like, G)
  delta, _ = perturbation.update(zeros, state, W)
  jax.tree.map(lambda d: np.testing.assert_array_equal(d, 0), delta)


def test_what_is_missing_or_impossible_is_named():
  perturbation = fs.layer_sam(0.1)
  with pytest.raises(ValueError, match="layer_sam needs params"):
    perturbation.update(G, perturbation.init(W))
  with pytest.raises(ValueError, match="max_ratio=-1 must"):
    fs.layer_sam(0.1, max_ratio=-1)
