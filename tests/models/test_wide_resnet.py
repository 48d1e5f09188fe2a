"""Wide residual networks: what they compute, and where their kernels start."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from forgetsam import models

IMAGES = (2, 6, 8, 2)


def conv(x, kernel, stride):
  pad = [(kernel.shape[0] // 2,) * 2] * 2
  layout = ("NHWC", "HWIO", "NHWC")
  return lax.conv_general_dilated(
    x, kernel, (stride, stride), pad, dimension_numbers=layout
  )


def test_logits_follow_the_definition(random_variables):
  module = models.create("wrn28_10", 3, width=16, stage_sizes=(1, 2))
  variables = random_variables(module, IMAGES[1:])
  params, stats = variables["params"], variables["batch_stats"]
  images = jax.random.normal(jax.random.key(1), IMAGES)

  def activate(x, *path):
    p, s = params, stats
    for name in path:
      p, s = p[name], s[name]
    x = (x - s["mean"]) / jnp.sqrt(s["var"] + 1e-5) * p["scale"] + p["bias"]
    return jnp.maximum(x, 0)

  x = conv(images, params["stem"]["kernel"], 1)
  for block, stride, projected in [
    ("stage0_block0", 1, False),  # 16 channels, as the stem has
    ("stage1_block0", 2, True),
    ("stage1_block1", 1, False),
  ]:
    p = params[block]
    assert ("shortcut" in p) == projected
    y = activate(x, block, "bn1")
    if projected:
      x = conv(y, p["shortcut"]["kernel"], stride)
    y = conv(y, p["conv1"]["kernel"], stride)
    y = conv(activate(y, block, "bn2"), p["conv2"]["kernel"], 1)
    x = x + y
  head = params["head"]["dense"]
  features = activate(x, "bn").mean((1, 2))
  expected = features @ head["kernel"] + head["bias"]
  logits = module.apply(variables, images)
  np.testing.assert_allclose(logits, expected, rtol=2e-4, atol=2e-4)


def test_kernels_are_he_normal_of_the_fan_out():
  module = models.create("wrn28_10", 3, width=64, stage_sizes=(1,))
  params, _ = models.initialise(module, jax.random.key(0), (8, 8, 3))
  for name, fan_out in [("conv2", 9 * 64), ("shortcut", 64)]:
    kernel = np.asarray(params["stage0_block0"][name]["kernel"])
    np.testing.assert_allclose(np.std(kernel), (2 / fan_out) ** 0.5, rtol=0.05)


def test_dropout_lies_between_a_blocks_convolutions():
  options = {"width": 16, "stage_sizes": (1,), "dropout": 0.5}
  module = models.create("wrn28_10", 3, **options)
  params, state = models.initialise(module, jax.random.key(0), (4, 4, 1))
  params["stage0_block0"]["conv2"]["kernel"] *= 0  # what is dropped is lost
  forward = models.forward(module)
  images = jax.random.normal(jax.random.key(1), (4, 4, 4, 1))
  one, two = (
    forward(params, state, images, train=True, key=jax.random.key(k))[0]
    for k in (1, 2)
  )
  np.testing.assert_array_equal(one, two)
