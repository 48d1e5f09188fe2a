"""Position embeddings for another image size."""

import numpy as np
import pytest

from forgetsam import models


def _cubic(x):
  """Keys' kernel with a = -1/2."""
  x = np.abs(x)
  near = 1.5 * x**3 - 2.5 * x**2 + 1
  far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
  return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _weights(old, new):
  """Of each old position in each new one, half-pixel centres, antialiased."""
  scale = max(old / new, 1.0)
  centres = (np.arange(new) + 0.5) * old / new - 0.5
  weights = _cubic((centres[:, None] - np.arange(old)) / scale)
  return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("grid", [(10, 10), (3, 3), (4, 9)])
def test_bicubic_and_antialiased(grid):
  positions = np.random.default_rng(0).normal(size=(1, 5, 7, 2))
  expected = np.einsum(
    "ri,cj,bijf->brcf", _weights(5, grid[0]), _weights(7, grid[1]), positions
  )
  resized = models.resize_positions(
    positions.reshape(1, 35, 2).astype("float32"), grid, (5, 7)
  )
  assert resized.shape == (1, grid[0] * grid[1], 2)
  np.testing.assert_allclose(
    resized, expected.reshape(1, -1, 2), rtol=1e-4, atol=1e-5
  )


def test_the_same_grid_comes_back_as_it_is():
  positions = np.random.default_rng(0).normal(size=(1, 9, 2))
  positions = positions.astype("float32")
  assert models.resize_positions(positions, (3, 3)) is positions


def test_a_transposed_grid_is_another_one():
  positions = np.arange(6, dtype="float32").reshape(1, 6, 1)
  resized = models.resize_positions(positions, (3, 2), (2, 3))
  assert np.abs(resized - positions).max() > 0.1


def test_the_old_grid_must_hold_the_positions():
  with pytest.raises(ValueError, match=r"50 positions.*\(7, 7\).*class token"):
    models.resize_positions(np.ones((1, 50, 4), "float32"), (14, 14))
