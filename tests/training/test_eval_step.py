import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from meshes import data_mesh

import forgetsam as fs


def forward(params, model_state, images, *, train, key):
  assert train is False
  return images @ params, model_state


PARAMS = jax.random.normal(jax.random.key(0), (5, 3))
IMAGES = jax.random.normal(jax.random.key(1), (16, 5))
LABELS = jnp.arange(16) % 3


@pytest.mark.parametrize("devices", [None, 8])
def test_sums_run_over_the_examples_that_count(devices):
  mesh = devices and data_mesh(devices)
  step = fs.make_eval_step(forward, mesh=mesh)
  mask = jnp.arange(16) < 11
  images = IMAGES.at[12].set(jnp.nan)  # padding may hold anything
  sums = step(PARAMS, {}, {"image": images, "label": LABELS, "mask": mask})
  logits = IMAGES[:11] @ PARAMS
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, LABELS[:11])
  np.testing.assert_allclose(sums["loss"], losses.sum(), rtol=1e-5)
  assert sums["correct"] == jnp.sum(logits.argmax(-1) == LABELS[:11])
  assert sums["count"] == 11


def test_soft_labels_are_scored_by_their_argmax():
  step = fs.make_eval_step(forward)
  soft = 0.6 * jax.nn.one_hot(LABELS, 3) + 0.4 / 3
  mask = jnp.ones(16)
  one = step(PARAMS, {}, {"image": IMAGES, "label": LABELS, "mask": mask})
  two = step(PARAMS, {}, {"image": IMAGES, "label": soft, "mask": mask})
  assert one["correct"] == two["correct"]


def test_without_a_mask_every_example_counts():
  step = fs.make_eval_step(forward)
  sums = step(PARAMS, {}, {"image": IMAGES, "label": LABELS})
  assert sums["count"] == 16


def test_a_batch_that_the_devices_do_not_divide_is_refused():
  mesh = data_mesh(8)
  step = fs.make_eval_step(forward, mesh=mesh)
  with pytest.raises(ValueError, match="8 devices must divide the batch of 9"):
    step(PARAMS, {}, {"image": IMAGES[:9], "label": LABELS[:9]})
