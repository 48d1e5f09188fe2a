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


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"label": LABELS[:, None]}, r"labels of shape \(16, 1\).*labels\[:, 0\]"),
    ({"label": LABELS > 1}, "labels.*are bool"),
    ({"label": LABELS * 1.0}, "labels.*are float32"),
    ({"label": jnp.ones((16, 4))}, r"\(16, 4\).*distributions \(16, 3\)"),
    ({"mask": jnp.ones((16, 1))}, r'"mask"\].*\(16, 1\).*examples, \(16,\)'),
    ({"index": LABELS}, r"\['index'\], which nothing reads"),
  ],
)
def test_a_batch_that_does_not_fit_is_refused(change, message):
  step = fs.make_eval_step(forward)
  with pytest.raises(ValueError, match=message):
    step(PARAMS, {}, {"image": IMAGES, "label": LABELS} | change)


def test_a_model_of_one_output_is_refused():
  step = fs.make_eval_step(forward)
  with pytest.raises(ValueError, match=r"\(16, 1\).*two outputs"):
    step(PARAMS[:, :1], {}, {"image": IMAGES, "label": LABELS})


def test_a_label_that_is_no_class_is_wrong_with_an_infinite_loss():
  step, labels = fs.make_eval_step(forward), LABELS.at[:2].set(-1)
  sums = step(PARAMS, {}, {"image": IMAGES, "label": labels.at[1].set(3)})
  right = jnp.argmax(IMAGES @ PARAMS, -1) == LABELS
  assert sums["correct"] == right[2:].sum()
  assert sums["loss"] == np.inf
  assert sums["count"] == 16
  assert np.isfinite(sums["bin_confidence"]).all()


def test_positions_count_as_examples_do():
  step = fs.make_eval_step(forward)
  mask = jnp.arange(16) % 3 > 0
  flat = {"image": IMAGES, "label": LABELS, "mask": mask}
  shaped = {k: x.reshape(4, 4, *x.shape[1:]) for k, x in flat.items()}
  found, expected = step(PARAMS, {}, shaped), step(PARAMS, {}, flat)
  for name in expected:
    np.testing.assert_allclose(found[name], expected[name], rtol=1e-6)
