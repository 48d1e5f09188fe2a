import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from sharpness.problems import PARAMS, STATE, batches_of, draw, forward

import forgetsam as fs
from forgetsam.sharpness import (
  dataset_loss,
  loss_surface,
  orthonormal,
  plot_loss_surface,
  plot_spectral_density,
  spectral_density,
)

KEY = jax.random.key(0)
GRID = np.linspace(-1, 1, 5)


def test_rows_are_the_second_direction():
  value = lambda w: 3 * w["a"] ** 2 + w["b"]  # noqa: E731
  w = {"a": jnp.array(1.0), "b": jnp.array(-2.0)}
  along_a = {"a": jnp.array(1.0), "b": jnp.array(0.0)}
  along_b = {"a": jnp.array(0.0), "b": jnp.array(2.0)}
  surface = loss_surface(value, w, (along_a, along_b), GRID)
  expected = 3 * (1 + GRID[None]) ** 2 + (-2 + 2 * GRID[:, None])
  np.testing.assert_allclose(surface, expected, rtol=1e-5, atol=1e-6)


def test_orthonormal_directions_span_the_plane():
  a, b = {"x": draw(1, 30)}, {"x": draw(2, 30)}
  near = jax.tree.map(lambda x, y: x + 0.01 * y, a, b)
  d1, d2 = orthonormal(a, near)
  np.testing.assert_allclose(np.linalg.norm(d1["x"]), 1, rtol=1e-5)
  np.testing.assert_allclose(np.linalg.norm(d2["x"]), 1, rtol=1e-5)
  assert abs(np.vdot(d1["x"], d2["x"])) < 1e-6
  rest = near["x"] - np.vdot(near["x"], d1["x"]) * d1["x"]
  np.testing.assert_allclose(
    np.vdot(rest, d2["x"]), np.linalg.norm(rest), rtol=1e-3
  )


@pytest.mark.parametrize(
  ("first", "second"), [([0.0, 0.0], [1.0, 1.0]), ([1.0, 2.0], [2.0, 4.0])]
)
def test_directions_that_span_no_plane_are_refused(first, second):
  with pytest.raises(ValueError, match="two different directions"):
    orthonormal(jnp.array(first), jnp.array(second))


def test_obfs_direction_is_the_gradient_of_its_pseudo_loss():
  signal = fs.output_bias_forgetting()
  loss = dataset_loss(forward, fs.pseudo_loss(signal), STATE, batches_of(7))
  batch = next(iter(batches_of(24)))
  logits, pullback = jax.vjp(
    lambda p: forward(p, STATE, batch["image"], train=False, key=None)[0],
    PARAMS,
  )
  (expected,) = pullback(signal(logits, batch["label"]))
  np.testing.assert_allclose(
    ravel_pytree(loss.value_and_gradient(PARAMS)[1])[0],
    ravel_pytree(expected)[0],
    rtol=1e-4,
    atol=1e-6,
  )


def make_density():
  diagonal = jnp.linspace(-1, 5, 20)
  return spectral_density(
    lambda v: diagonal * v, diagonal, KEY, num_steps=5, num_samples=2
  )


def test_pictures_say_what_their_axes_are(tmp_path):
  surface = GRID[None] ** 2 + 2 * GRID[:, None]
  figure = plot_loss_surface(surface, GRID, names=("ascent", "random"))
  axis, colorbar = figure.axes
  assert axis.get_xlabel() == "ascent (distance of weights)"
  assert axis.get_ylabel() == "random (distance of weights)"
  assert colorbar.get_ylabel() == "loss (nats)"
  figure.savefig(tmp_path / "surface.png")
  density = make_density()
  figure = plot_spectral_density(density)
  (axis,) = figure.axes
  assert axis.get_xlabel() == "eigenvalue (loss per squared unit of weight)"
  assert axis.get_ylabel() == "density (per unit of eigenvalue)"
  drawn = axis.lines[0].get_ydata()
  np.testing.assert_allclose(np.max(drawn), np.max(density.density))
  figure.savefig(tmp_path / "density.png")


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
  density = make_density()
  for draw_it in (
    lambda: plot_loss_surface(np.zeros((5, 5)), GRID),
    lambda: plot_spectral_density(density),
  ):
    with pytest.raises(ImportError, match=r"matplotlib.*forgetsam\[lab\]"):
      draw_it()
