"""bfloat16 computation around float32 weights: signal and radius survive."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import forgetsam as fs

SHAPE = (8, 8, 1)
IMAGES = jax.random.normal(jax.random.key(1), (32, *SHAPE))
LABELS = jnp.arange(32) % 10
MODELS: dict[str, dict[str, Any]] = {
  "cnn": {"widths": (8, 16), "batch_norm": True},
  "vit_tiny": {"width": 16, "depth": 1, "patch_size": 4},
}
SIGNAL = fs.output_bias_forgetting()
# Smaller than what one bfloat16 weight can move by: 0.02 has steps of 1e-4.
RHO = 0.01


class Pass(NamedTuple):
  forward: Any
  params: Any
  model_state: Any
  logits: jax.Array
  ascent: Any


@functools.cache
def ascend(name: str, dtype: str) -> Pass:
  """Logits and OBF's ascent gradient, at weights away from zero."""
  module = fs.models.create(name, num_classes=10, dtype=dtype, **MODELS[name])
  params, model_state = fs.models.initialise(module, jax.random.key(0), SHAPE)
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda w: w + np.float32(0.02) * rng.normal(size=w.shape).astype("f4"),
    params,
  )
  forward = fs.models.forward(module)

  def logits_fn(p: Any) -> jax.Array:
    return forward(p, model_state, IMAGES, train=True, key=jax.random.key(2))[0]

  @jax.jit
  def ascent_of(p: Any) -> tuple[jax.Array, Any]:
    logits, pullback = jax.vjp(logits_fn, p)
    return logits, pullback(SIGNAL(logits, LABELS))[0]

  logits, ascent = ascent_of(params)
  return Pass(forward, params, model_state, logits, ascent)


@pytest.mark.parametrize("name", MODELS)
def test_the_signal_survives(name: str):
  full, low = ascend(name, "float32"), ascend(name, "bfloat16")
  # bfloat16 is at work: logits differ by its eight bits, not by float32's 24.
  gap = float(jnp.max(jnp.abs(full.logits - low.logits)))
  assert 1e-4 < gap / float(jnp.max(jnp.abs(full.logits))) < 0.03
  signals = SIGNAL(full.logits, LABELS), SIGNAL(low.logits, LABELS)
  assert signals[1].dtype == jnp.float32
  np.testing.assert_allclose(
    signals[1], signals[0], atol=0.02 * float(jnp.max(jnp.abs(signals[0])))
  )
  assert {g.dtype for g in jax.tree.leaves(low.ascent)} == {
    jnp.dtype("float32")
  }
  cosine = optax.tree.vdot(full.ascent, low.ascent) / (
    optax.tree.norm(full.ascent) * optax.tree.norm(low.ascent)
  )
  assert float(cosine) > 0.99


@pytest.mark.parametrize("name", MODELS)
def test_the_radius_survives(name: str):
  """The whole step: rho to float32 rounding, and its effect on the loss."""
  found, states = {}, {}
  for dtype in ("float32", "bfloat16"):
    start = ascend(name, dtype)
    optimizer = fs.sgdw(0.1)
    perturb = fs.perturbed_gradient(fs.sam(RHO))
    step = fs.make_train_step(
      start.forward,
      loss=fs.sigmoid_cross_entropy(),
      optimizer=optimizer,
      ascent=SIGNAL,
      perturb=perturb,
    )
    state = fs.create_train_state(
      start.params, start.model_state, optimizer, perturb
    )
    batch = {"image": IMAGES, "label": LABELS}
    states[dtype], found[dtype] = step(state, batch, jax.random.key(3))
  assert float(found["bfloat16"]["perturbation_norm"]) == pytest.approx(
    RHO, rel=1e-5
  )
  rise = {
    dtype: float(metrics["perturbed_loss"] - metrics["loss"])
    for dtype, metrics in found.items()
  }
  assert abs(rise["float32"]) > 0.01
  assert rise["bfloat16"] == pytest.approx(rise["float32"], rel=0.1)
  floats = [
    x
    for x in jax.tree.leaves(states["bfloat16"])
    if jnp.issubdtype(x.dtype, jnp.floating)
  ]
  assert {x.dtype for x in floats} == {jnp.dtype("float32")}
