"""Sums of a batch and scores of a split against a slow loop."""

import jax.numpy as jnp
import numpy as np
import pytest
from meshes import data_mesh
from slow_scores import slow_scores

import forgetsam as fs
from forgetsam.experiment.evaluation import evaluate

N, K = 90, 16
CLASSES = (15, 2, 3, 5, 7, 8, 10, 11, 12, 14)


def forward(params, model_state, images, *, train, key):
  assert train is False
  return images @ params, model_state


def problem():
  """Images that a linear model classifies neither badly nor well."""
  draws = np.random.default_rng(0)
  params = draws.normal(size=(6, K)).astype(np.float32)
  images = draws.normal(size=(N, 6)).astype(np.float32)
  noisy = images @ params + draws.normal(size=(N, K)) * 2.5
  return params, images, noisy, draws


def labels_of(kind, noisy, draws, classes):
  """One label, mixed labels or several right classes for each image."""
  if classes is not None:  # the set shows these alone
    noisy = np.where(np.isin(np.arange(K), classes), noisy, -np.inf)
  one = noisy.argmax(-1)
  if kind == "one":
    return one
  if kind == "mixed":
    weights = draws.uniform(0.6, 0.9, size=(N, 1))
    other = draws.integers(K, size=N)  # of any class, shown or not
    rows = weights * np.eye(K)[one] + (1 - weights) * np.eye(K)[other]
    return rows.astype(np.float32)
  several = np.eye(K)[one] + (draws.uniform(size=(N, K)) < 0.1)
  return (several > 0).astype(np.float32)


def batches_of(images, labels, mask, size):
  """Batches of one size; padding has nan images."""
  for start in range(0, len(images), size):
    part = slice(start, start + size)
    missing = size - len(images[part])
    fill = [(0, missing)]
    yield {
      "image": np.pad(
        images[part], [*fill, (0, 0)], constant_values=np.float32(np.nan)
      ),
      "label": np.pad(labels[part], fill + [(0, 0)] * (labels.ndim - 1)),
      "mask": np.pad(mask[part], fill),
    }


@pytest.mark.parametrize("classes", [None, CLASSES])
@pytest.mark.parametrize("kind", ["one", "mixed", "several"])
@pytest.mark.parametrize(("devices", "size"), [(None, 7), (None, 64), (8, 16)])
def test_evaluate_agrees_with_a_slow_loop(kind, classes, devices, size):
  params, images, noisy, draws = problem()
  labels = labels_of(kind, noisy, draws, classes)
  mask = (np.arange(N) % 11 != 3).astype(np.float32)
  step = fs.make_eval_step(
    forward,
    classes=classes,
    multi_label=kind == "several",
    mesh=devices and data_mesh(devices),
  )
  found = evaluate(step, params, {}, batches_of(images, labels, mask, size))
  logits = images.astype(np.float64) @ params
  expected, _ = slow_scores(logits, labels, mask, classes, kind == "several")
  # Correct predictions are whole numbers; only loss and ECE are rounded.
  assert found == pytest.approx(expected, rel=2e-6)
  assert found["count"] == np.sum(mask)
  assert isinstance(found["count"], int)
  assert 0.2 < found["accuracy"] < 0.9
  assert found["accuracy"] < found["top5_accuracy"] < 1


def test_bins_are_those_of_the_slow_loop():
  params, images, noisy, draws = problem()
  labels = labels_of("one", noisy, draws, None)
  mask = np.arange(N) < 80
  batch = {"image": images, "label": labels, "mask": mask}
  sums = fs.make_eval_step(forward)(params, {}, batch)
  _, bins = slow_scores(images.astype(np.float64) @ params, labels, mask)
  for i, name in enumerate(["bin_count", "bin_confidence", "bin_correct"]):
    np.testing.assert_allclose(sums[name], [b[i] for b in bins], rtol=1e-5)


def score(logits, label, **keywords):
  """The sums of one batch whose images are its logits."""

  def logits_are_images(params, model_state, images, *, train, key):
    return images, model_state

  step = fs.make_eval_step(logits_are_images, **keywords)
  return step({}, {}, {"image": jnp.array(logits), "label": jnp.array(label)})


def test_of_equal_logits_the_lower_class_ranks_first():
  flat = np.zeros((3, 8), np.float32)
  assert score(flat, [0, 4, 5])["correct"] == 1
  assert score(flat, [0, 4, 5])["correct_top5"] == 2
  # Whatever the order in which the classes are given.
  assert score(flat, [0, 4, 4], classes=[7, 4, 0])["correct"] == 1


def test_with_few_classes_the_top_five_are_all():
  sums = score(np.eye(3, dtype=np.float32), [1, 2, 0])
  assert sums["correct"] == 0
  assert sums["correct_top5"] == 3


@pytest.mark.parametrize("num_classes", [3, 5, 15])
def test_bins_include_their_upper_edge(num_classes):
  """A confidence of 1/K = b/15 lies in bin b - 1."""
  sums = score(np.zeros((1, num_classes), np.float32), [0])
  assert np.argmax(sums["bin_count"]) == 15 // num_classes - 1
  assert np.sum(sums["bin_count"]) == 1


def test_a_sure_prediction_lies_in_the_last_bin():
  sums = score(np.array([[50.0, 0.0]], np.float32), [0])
  assert sums["bin_count"][14] == 1
  assert sums["bin_confidence"][14] == 1


def test_a_logit_of_another_class_does_not_matter():
  logits = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)
  labels = np.array([1, 4, 4, 1])
  others = logits.copy()
  others[:, [0, 2, 3, 5]] = 99.0
  one = score(logits, labels, classes=[1, 4])
  two = score(others, labels, classes=[1, 4])
  for name in one:
    np.testing.assert_array_equal(one[name], two[name])


@pytest.mark.parametrize(
  ("label", "keywords"),
  [
    ([1], {"classes": [0, 2]}),
    ([4], {}),
    ([-1], {}),
    ([[0.0, 0.0, 0.0, 0.0]], {"multi_label": True}),
    ([[0.0, 1.0, 0.0, 0.0]], {"multi_label": True, "classes": [0, 2]}),
  ],
)
def test_an_example_without_a_right_class_is_wrong(label, keywords):
  sums = score(np.array([[9.0, 0.0, 0.0, 0.0]], np.float32), label, **keywords)
  assert sums["loss"] == np.inf
  assert sums["correct"] == 0
  assert sums["correct_top5"] == 0
  assert sums["count"] == 1


def test_what_is_not_a_number_is_wrong_and_shows():
  logits = np.full((10, 10), np.nan, np.float32)
  batch = {"image": logits, "label": np.arange(10)}
  step = fs.make_eval_step(lambda p, s, x, *, train, key: (x, s))
  result = evaluate(step, {}, {}, [batch])
  assert result["accuracy"] == result["top5_accuracy"] == 0
  assert np.isnan(result["loss"])
  assert np.isnan(result["ece"])


def test_a_mixed_label_is_not_several_right_classes():
  label = np.array([[0.7, 0.3, 0.0]], np.float32)
  logits = np.array([[0.0, 1.0, 0.0]], np.float32)
  assert score(logits, label)["correct"] == 0
  assert score(logits, label, multi_label=True)["correct"] == 1


def test_devices_exchange_nothing_but_sums():
  step = fs.make_eval_step(
    forward, classes=CLASSES, multi_label=True, mesh=data_mesh(8)
  )
  batch = {
    "image": np.zeros((16, 6), np.float32),
    "label": np.zeros((16, K), np.float32),
    "mask": np.ones(16, np.float32),
  }
  params = np.zeros((6, K), np.float32)
  hlo = step.lower(params, {}, batch).compile().as_text()
  assert "all-reduce" in hlo
  for other in ("all-gather", "all-to-all", "collective-permute"):
    assert other not in hlo


@pytest.mark.parametrize(
  ("classes", "message"),
  [
    ([], r"classes .*not empty"),
    (np.array([[0, 1]]), r"classes has the shape \(1, 2\)"),
    (np.array([True, False]), "dtype bool"),
    (np.array([0.0, 1.0]), "dtype float64"),
    ([3, 1, 3], r"classes has \[3\] more than once"),
    ([0, -1], r"classes has \[-1\]"),
  ],
)
def test_classes_that_are_no_classes_are_refused(classes, message):
  with pytest.raises(ValueError, match=message):
    fs.make_eval_step(forward, classes=classes)


def test_classes_that_the_model_lacks_are_refused():
  with pytest.raises(ValueError, match=r"holds 3, and the model has .* 0 to 2"):
    score(np.zeros((1, 3), np.float32), [0], classes=[0, 3])


def test_class_indices_are_refused_where_several_may_be_right():
  with pytest.raises(ValueError, match=r"shape \(1,\): multi_label=True"):
    score(np.zeros((1, 3), np.float32), [0], multi_label=True)
