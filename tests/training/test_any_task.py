"""Steps of any task: batches of trees, losses and metrics of one's own."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from meshes import data_mesh

import forgetsam as fs
from forgetsam.training import classification_metrics

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
PARAMS = {"w": RNG.standard_normal((3, 2), np.float32)}
BATCH = {
  "x": {"u": RNG.standard_normal((8, 3), np.float32)},
  "y": {"t": np.ones(8, np.float32), "v": np.zeros(8, np.float32)},
}
MASK = np.array([0, 0, 1, 2, 0, 0, 3, 0.5], np.float32)
SAM = fs.perturbed_gradient(fs.sam(0.3))


def forward(params, model_state, inputs, *, train, key):
  """Two heads, and counts that have no gradient."""
  u = inputs["u"]
  heads = {"a": u @ params["w"], "b": u**2 @ params["w"]}
  return heads | {"n": jnp.arange(len(u))}, model_state


def losses(outputs, labels):
  first = (outputs["a"][:, 0] - labels["t"]) ** 2
  return first + (outputs["b"][:, 1] - labels["v"]) ** 2


def mean_loss(outputs, labels, where=None):
  return jnp.average(losses(outputs, labels), weights=where)


def two_metrics(outputs, labels, where):
  error = jnp.abs(outputs["a"][:, 0] - labels["t"])
  return {"mae": error, "also": jnp.average(error, weights=where)}


def run(batch=BATCH, *, forward=forward, optimizer=None, **arguments):
  optimizer = optax.sgd(1.0) if optimizer is None else optimizer
  given = {"loss": losses, "perturb": SAM, "inputs": "x", "labels": "y"}
  arguments = given | arguments
  perturb, mesh = arguments["perturb"], arguments.get("mesh")
  step = fs.make_train_step(forward, optimizer=optimizer, **arguments)
  state = fs.create_train_state(PARAMS, {}, optimizer, perturb, mesh)
  state, metrics = step(state, batch, KEY)
  return state.params["w"], metrics


def slow(mask, size):
  """A weighted mean of each micro-batch's gradient at its own delta."""
  total = 0.0
  for start in range(0, 8, size):
    x, y, v = jax.tree.map(
      lambda a, s=start: a[s : s + size], (BATCH["x"], BATCH["y"], mask)
    )
    if not v.sum():
      continue

    def loss(params, x=x, y=y, v=v):
      outputs, _ = forward(params, {}, x, train=True, key=None)
      return mean_loss(outputs, y, v)

    ascent = jax.grad(loss)(PARAMS)["w"]
    delta = 0.3 * ascent / jnp.linalg.norm(ascent)
    total += v.sum() * jax.grad(loss)({"w": PARAMS["w"] + delta})["w"]
  return PARAMS["w"] - total / mask.sum()


ALL = np.ones(8, np.float32)


@pytest.mark.parametrize(
  ("devices", "mask"),
  [(None, ALL), (4, ALL), (None, MASK), (1, MASK), (2, MASK), (4, MASK)],
)
def test_trees_of_several_heads_on_any_mesh(devices, mask):
  """Under a mask the loss that returns an example's each needs no `where`."""
  batch = BATCH if mask.all() else BATCH | {"mask": mask}
  weights, metrics = run(
    batch,
    mesh=devices and data_mesh(devices),
    micro_batch_size=2,
    metrics=two_metrics,
  )
  np.testing.assert_allclose(weights, slow(mask, 2), rtol=1e-5, atol=1e-6)
  outputs, _ = forward(PARAMS, {}, BATCH["x"], train=True, key=None)
  error = np.average(np.abs(outputs["a"][:, 0] - 1), weights=mask)
  np.testing.assert_allclose(metrics["mae"], error, rtol=1e-5)
  np.testing.assert_allclose(metrics["also"], error, rtol=1e-5)
  assert "accuracy" not in metrics


def test_a_perturbations_own_state_may_have_a_metrics_name():
  class Named(NamedTuple):
    perturbation_norm: jax.Array

  perturbation = optax.GradientTransformation(
    lambda params: Named(jnp.zeros(())),
    lambda grads, state, params=None: (
      jax.tree.map(jnp.ones_like, grads),
      state,
    ),
  )
  _, metrics = run(perturb=fs.perturbed_gradient(perturbation))
  assert float(metrics["perturbation_norm"]) == pytest.approx(6**0.5)


def test_a_signal_may_compute_in_another_precision():
  def half(params, model_state, inputs, *, train, key):
    return (inputs @ params["w"]).astype(jnp.bfloat16), model_state

  def signal(outputs, labels):
    return jnp.ones(outputs.shape, jnp.float32)

  loss = lambda outputs, labels: jnp.mean(outputs**2)  # noqa: E731
  batch = {"x": BATCH["x"]["u"]}
  _, metrics = run(batch, forward=half, loss=loss, ascent=signal, labels="x")
  np.testing.assert_allclose(metrics["perturbation_norm"], 0.3, rtol=1e-5)


def test_a_loss_per_example_and_its_mean_are_one():
  batch = BATCH | {"mask": MASK}
  for one, other in zip(run(batch), run(batch, loss=mean_loss), strict=True):
    for x, y in zip(*map(jax.tree.leaves, (one, other)), strict=True):
      np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)


def test_what_has_no_weight_may_be_nan():
  x, y = jax.tree.map(np.copy, (BATCH["x"], BATCH["y"]))
  x["u"][0], y["t"][1] = np.nan, np.nan
  batch = {"x": x, "y": y, "mask": MASK}
  weights, metrics = run(batch, metrics=two_metrics)
  expected, _ = run(BATCH | {"mask": MASK})
  np.testing.assert_allclose(weights, expected, rtol=1e-6)
  assert metrics["skipped"] == 0


@pytest.mark.parametrize(
  ("loss", "width"),
  [
    (optax.softmax_cross_entropy_with_integer_labels, ()),
    (optax.softmax_cross_entropy, (2,)),
  ],
)
def test_optaxs_losses_are_weighed_by_position(loss, width):
  """Their own `where` would choose classes: here it broadcasts, for B is K."""
  shape = (2, 2, *width)
  labels = RNG.dirichlet(np.ones(2), (2, 2)) if width else np.eye(2, dtype=int)
  batch = {
    "x": RNG.standard_normal((2, 2, 3), np.float32),
    "y": labels.reshape(shape).astype(np.float32 if width else np.int32),
    "mask": np.array([[1, 0], [2, 1]]),
  }
  linear = lambda p, s, x, *, train, key: (x @ p["w"], s)  # noqa: E731
  found, _ = run(batch, forward=linear, loss=loss)
  expected, _ = run(batch, forward=linear, loss=fs.softmax_cross_entropy())
  np.testing.assert_allclose(found, expected, atol=1e-6)


OUTPUTS = RNG.standard_normal((8, 3), np.float32)


def forward_weights(params, model_state, inputs, *, train, key):
  return params["w"].sum() + inputs, model_state


@pytest.mark.parametrize(
  "labels",
  [OUTPUTS, np.arange(8), np.arange(8.0), OUTPUTS.astype(np.int32)],
)
@pytest.mark.parametrize("given", ["y", "x"])
def test_no_accuracy_is_invented(labels, given):
  """Of regressions, whose targets look like classes; nor without labels."""
  batch = {"x": OUTPUTS} | ({"y": labels} if given == "y" else {})

  def loss(outputs, labels):
    return jnp.mean((outputs.T - labels.T) ** 2)

  _, metrics = run(batch, forward=forward_weights, loss=loss, labels=given)
  assert set(metrics) == {
    *("loss", "perturbed_loss", "grad_norm", "skipped"),
    *("perturbation_norm", "ascent_grad_norm"),
  }


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("given", ["ascent", "metrics"])
def test_a_loss_of_ones_own_on_classes(soft, given):
  labels = np.arange(8) % 3
  batch = {"x": OUTPUTS, "y": np.eye(3)[labels] if soft else labels}
  choose = {
    "ascent": {"ascent": fs.output_bias_forgetting()},
    "metrics": {"metrics": classification_metrics},
  }
  _, metrics = run(
    batch,
    forward=forward_weights,
    loss=lambda z, y: jnp.mean(z**2),
    **choose[given],
  )
  right = np.mean(OUTPUTS.argmax(1) == labels)
  np.testing.assert_allclose(metrics["accuracy"], right)


def test_evaluation_sums_metrics_by_weight():
  step = fs.make_eval_step(forward, inputs="x", labels="y", metrics=two_metrics)
  outputs, _ = forward(PARAMS, {}, BATCH["x"], train=False, key=None)
  for mask in (None, MASK, np.zeros(8)):
    weights = np.ones(8) if mask is None else mask
    batch = BATCH if mask is None else BATCH | {"mask": mask}
    sums = step(PARAMS, {}, batch)
    error = weights @ np.abs(outputs["a"][:, 0] - 1)
    assert set(sums) == {"mae", "also", "count"}
    np.testing.assert_allclose(sums["mae"], error, rtol=1e-6)
    np.testing.assert_allclose(sums["also"], error, rtol=1e-6)
    assert sums["count"] == weights.sum()


@pytest.mark.parametrize("made", [fs.make_train_step, fs.make_eval_step])
@pytest.mark.parametrize("names", [{"inputs": "mask"}, {"labels": "mask"}])
def test_names_that_are_none_are_refused(made, names):
  options = {"loss": losses, "optimizer": optax.sgd(0.1)}
  with pytest.raises(ValueError, match=r"(inputs|labels)=.*one key"):
    made(forward, **names, **(options if made is fs.make_train_step else {}))


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"image": OUTPUTS}, r"\['image'\], which nothing reads.*'x', 'y' and"),
    ({"y": None}, r'"y"\].*no arrays'),
    ({"y": {"t": 1.0}}, r'"y"\] is a dict with a float.*array'),
    ({"y": {"t": np.ones(8), "v": np.ones(7)}}, r'"y"\].*\[7, 8\] examples'),
    ({"x": {}}, r'"x"\].*no arrays'),
    ({"x": {"u": OUTPUTS[:3]}}, r'"x"\] has 3 examples.*"y"\] 8'),
    ({"mask": np.ones((8, 2))}, r'"mask"\].*\(8, 2\).*weigh examples, \(8,\)'),
    ({"mask": BATCH["y"]}, r'"mask"\] is a dict.*array, of weights'),
  ],
)
def test_batches_that_do_not_fit_are_refused(change, message):
  with pytest.raises(ValueError, match=message):
    run(BATCH | change)


def test_a_batch_that_is_no_dictionary_is_refused():
  with pytest.raises(ValueError, match=r"the batch is a tuple.*'x' and 'y'"):
    run(tuple(BATCH.values()))


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"loss": lambda o, y: o["a"][:3, 0]}, r"loss has the shape \(3,\).*\(8,"),
    ({"loss": lambda o, y: (jnp.float32(1), o)}, "loss.*not a tuple"),
    ({"loss": lambda o, y: jnp.int32(3)}, "loss is int32: .*floating"),
    ({"loss": fs.softmax_cross_entropy()}, "logits.*not a dict.*several out"),
    ({"ascent": lambda o, y: o["a"]}, r"ascent returns \(8, 2\) for.*\{'a'"),
    ({"forward": lambda *a, **k: a[2]["u"]}, r"forward returns a .*\(logits, "),
    (
      {"forward": lambda p, s, x, **_: (x["u"], {"n": jnp.ones(3)})},
      r"model_state \{\} and returns \{'n': \(3,\)\}.*same names",
    ),
    ({"metrics": lambda o, y, where: [1]}, "metrics returns a list"),
    ({"metrics": lambda o, y: {"loss": 1.0}}, "metrics returns 'loss'.*other"),
    ({"metrics": lambda o, y: {"a": o}}, r"metrics\['a'\].*not a dict"),
    (
      {"metrics": lambda o, y: {"a": 1j * o["a"]}},
      r"metrics\['a'\] is complex64",
    ),
  ],
)
def test_losses_and_metrics_that_do_not_fit_are_refused(arguments, message):
  with pytest.raises(ValueError, match=message):
    run(**arguments)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"loss": lambda o, y: o["a"].mean()}, "loss takes no `where`"),
    (
      {"metrics": lambda o, y: {"mae": o["a"].mean()}},
      "metrics takes no `where`.*'mae'",
    ),
  ],
)
def test_means_that_no_mask_reaches_are_refused(arguments, message):
  with pytest.raises(ValueError, match=message):
    run(BATCH | {"mask": MASK}, **arguments)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"classes": [0]}, "metrics replace"),
    ({"multi_label": True}, "metrics replace"),
  ],
)
def test_scores_of_classes_beside_metrics_are_refused(arguments, message):
  with pytest.raises(ValueError, match=message):
    fs.make_eval_step(forward, metrics=two_metrics, **arguments)
