"""Weights of examples in the train step: one weighted mean, on any mesh."""

import collections
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from meshes import data_mesh
from slow_losses import (
  obf_signal,
  softmax_loss,
  softmax_signal,
  weighted_rows,
)

import forgetsam as fs

KEY, M = jax.random.key(42), 2
LOSS, OBF = fs.softmax_cross_entropy(), fs.output_bias_forgetting()
SAM = fs.perturbed_gradient(fs.sam(0.5))
RNG = np.random.default_rng(0)
PARAMS = {
  "w": 0.5 * RNG.standard_normal((6, 4), np.float32),
  "b": np.linspace(-0.2, 0.2, 4, dtype=np.float32),
}
# Of eight micro-batches three have no weight, the first among them, and of four
# devices the second has none.
MASK = np.array([0, 0, 1, 2, 0, 0, 0, 0, 0, 3, 1, 1, 0.5, 0, 1, 4])
SCANS = "forgetsam.training._micro_batches.MOST_UNROLLED"


def forward(params, model_state, images, *, train, key):
  logits = images @ params["w"] + params["b"]
  if model_state:
    model_state = {
      "mean": 0.5 * model_state["mean"] + 0.5 * jnp.mean(images),
      "count": model_state["count"] + 1,
    }
  return logits, model_state


def make_batch(mask=MASK, lead=()):
  rng, shape = np.random.default_rng(1), (len(mask), *lead)
  images = rng.standard_normal((*shape, 6), np.float32)
  return {
    "image": images,
    "label": rng.integers(4, size=shape, dtype=np.int32),
    "mask": np.array(mask, np.float32),
  }


def run(batch, *, loss=LOSS, perturb=SAM, model_state=None, **arguments):
  optimizer = optax.sgd(1.0)
  step = fs.make_train_step(
    forward, loss=loss, optimizer=optimizer, perturb=perturb, **arguments
  )
  model_state = {} if model_state is None else model_state
  mesh = arguments.get("mesh")
  state = fs.create_train_state(PARAMS, model_state, optimizer, perturb, mesh)
  return step(state, batch, KEY)


def slow(batch, *, fraction=1.0, size=M, rho=0.5):
  """SAM on OBF in NumPy: a loop over the micro-batches that have a weight."""
  x, labels, mask = (np.asarray(batch[k]) for k in ("image", "label", "mask"))
  bias = np.ones((*x.shape[:-1], 1))
  x = np.concatenate([x, bias], axis=-1).astype(np.float64)
  params = np.concatenate([PARAMS["w"], PARAMS["b"][None]]).astype(np.float64)
  sums, weights = collections.Counter(), collections.Counter()
  gradient = 0.0
  for start in range(0, len(mask), size):
    here = slice(start, start + size)
    first = slice(start, start + int(size * fraction))
    clean_weight, weight = mask[first].sum(), mask[here].sum()
    if not weight:
      continue
    clean = weighted_rows(x[first] @ params, labels[first], mask[first])
    ascent = x[first].reshape(-1, 7).T @ obf_signal(*clean)
    norm = np.linalg.norm(ascent)
    delta = rho * ascent / norm if norm else 0 * ascent
    whole = weighted_rows(x[here] @ (params + delta), labels[here], mask[here])
    rows = x[here].reshape(-1, 7)
    gradient = gradient + weight * (rows.T @ softmax_signal(*whole))
    right = np.argmax(clean[0], -1) == labels[first].ravel()
    for name, w, value in (
      ("loss", clean_weight, softmax_loss(*clean)),
      ("accuracy", clean_weight, clean[2] @ right),
      ("ascent_grad_norm", clean_weight, norm),
      ("perturbed_loss", weight, softmax_loss(*whole)),
      ("perturbation_norm", weight, np.linalg.norm(delta)),
    ):
      sums[name] += w * value
      weights[name] += w
  metrics = {name: sums[name] / weights[name] for name in sums}
  return params - gradient / mask.sum(), metrics


def assert_is_slow(batch, found, **arguments):
  state, metrics = found
  expected, numbers = slow(batch, **arguments)
  np.testing.assert_allclose(state.params["w"], expected[:-1], atol=2e-6)
  np.testing.assert_allclose(state.params["b"], expected[-1], atol=2e-6)
  assert metrics["skipped"] == 0
  for name, number in numbers.items():
    np.testing.assert_allclose(metrics[name], number, rtol=2e-5, err_msg=name)


def assert_is_alike(found, expected):
  """The same parameters and metrics, whatever else the batches held."""
  (state, metrics), (other, numbers) = found, expected
  for name in PARAMS:
    np.testing.assert_allclose(
      state.params[name], other.params[name], atol=1e-6
    )
  for name in numbers:
    np.testing.assert_allclose(
      metrics[name], numbers[name], rtol=1e-5, err_msg=name
    )


@pytest.mark.parametrize(
  ("devices", "unrolled", "lead"),
  [
    *((None, 1, ()), (4, 16, ()), (8, 16, ())),
    *((None, 1, (3,)), (1, 1, (3,)), (2, 1, (3,)), (4, 16, (3,))),
    *((8, 16, (3,)), (2, 16, (2, 3))),
  ],
)
def test_the_answer_is_one_weighted_mean_on_any_mesh(
  devices, unrolled, lead, monkeypatch
):
  """Of examples, of a language model's tokens, and of pixels, each with OBF."""
  monkeypatch.setattr(SCANS, unrolled)  # a scan compiles sooner than 8 copies
  mesh = devices and data_mesh(devices)
  batch = make_batch(lead=lead)
  if lead:
    padding = np.arange(16 * math.prod(lead)).reshape(16, *lead) % 5 > 1
    batch["mask"] = batch["mask"].reshape(16, *[1] * len(lead)) * padding
  assert_is_slow(batch, run(batch, ascent=OBF, micro_batch_size=M, mesh=mesh))


def test_the_clean_pass_of_a_part_has_its_own_weight():
  batch = make_batch()
  found = run(
    batch,
    ascent=OBF,
    micro_batch_size=4,
    ascent_fraction=0.5,
    mesh=data_mesh(2),
  )
  assert_is_slow(batch, found, fraction=0.5, size=4)


def test_54_of_64_padded_rows_leave_the_ten():
  batch = make_batch(np.arange(64) < 10)
  batch["label"][10:] = -1
  batch["image"][10:] = np.nan  # padding, unfilled
  ten = {k: v[:10] for k, v in batch.items() if k != "mask"}
  assert_is_alike(run(batch), run(ten))


def test_tokens_are_weighed_one_by_one():
  """`[B, T, K]` with a mask `[B, T]` is the batch of the tokens that count."""
  batch = make_batch(MASK, (3,))
  mask = np.arange(48).reshape(16, 3) % 5 > 1
  found = run(batch | {"mask": jnp.asarray(mask)})
  flat = {k: batch[k][mask] for k in ("image", "label")}
  assert_is_alike(found, run(flat))


@pytest.mark.parametrize("devices", [None, 2])
def test_a_micro_batch_without_weight_adds_nothing_to_the_model(devices):
  """On the first of two devices no example counts."""
  batch = make_batch(np.array([0, 0, 0, 0, 1, 2, 0, 0]))
  start = {"mean": jnp.float32(3.0), "count": jnp.int32(7)}
  mesh = devices and data_mesh(devices)
  state, _ = run(
    batch, model_state=start, perturb=None, micro_batch_size=M, mesh=mesh
  )
  mean = 0.5 * 3 + 0.5 * jnp.mean(batch["image"][4:6])
  np.testing.assert_allclose(state.model_state["mean"], mean, rtol=1e-6)
  assert state.model_state["count"] == 8


@pytest.mark.parametrize(("devices", "perturb"), [(None, SAM), (2, None)])
def test_a_batch_without_weight_is_skipped(devices, perturb):
  mesh = devices and data_mesh(devices)
  state, metrics = run(make_batch(np.zeros(8)), perturb=perturb, mesh=mesh)
  assert metrics["skipped"] == 1
  assert np.isnan(metrics["loss"])
  assert state.step == 0
  for name in PARAMS:
    np.testing.assert_array_equal(state.params[name], PARAMS[name])


@pytest.mark.parametrize(("label", "perturb"), [(-1, None), (4, SAM)])
def test_a_label_that_is_no_class_skips_the_step(label, perturb):
  batch = make_batch()
  del batch["mask"]
  batch["label"][3] = label
  state, metrics = run(batch, perturb=perturb)
  assert metrics["skipped"] == 1
  assert np.isnan(metrics["loss"])
  np.testing.assert_array_equal(state.params["w"], PARAMS["w"])


def test_the_state_of_perturb_is_the_weighted_mean(monkeypatch):
  monkeypatch.setattr(SCANS, 1)

  def update(updates, state, params=None, **extra):
    new = {"mean": updates["b"], "rho": state["rho"]}
    return jax.tree.map(lambda g: state["rho"] * g, updates), new

  remembers = optax.GradientTransformationExtraArgs(
    lambda params: {"mean": jnp.zeros(4), "rho": jnp.float32(0.1)}, update
  )
  batch = make_batch()
  state, _ = run(
    batch, perturb=fs.perturbed_gradient(remembers), micro_batch_size=M
  )
  inner = state.perturb_state.perturbation
  logits, _ = forward(PARAMS, {}, batch["image"], train=True, key=None)
  gradient = jax.grad(LOSS)(logits, batch["label"], where=MASK)
  np.testing.assert_allclose(inner["mean"], gradient.sum(0), atol=1e-6)
  assert inner["rho"] == jnp.float32(0.1)  # equal values keep their bits


def test_one_collective_carries_sums_and_weights():
  step = fs.make_train_step(
    forward,
    loss=LOSS,
    optimizer=optax.sgd(1.0),
    perturb=SAM,
    mesh=data_mesh(2),
    micro_batch_size=M,
  )
  state = fs.create_train_state(PARAMS, {}, optax.sgd(1.0), SAM, data_mesh(2))
  batch, reduced = make_batch(), []
  for mask in (True, False):
    text = step.lower(
      state, batch if mask else {k: batch[k] for k in ("image", "label")}, KEY
    ).as_text()
    assert "all_gather" not in text
    reduced.append(text.count("stablehlo.all_reduce"))
  assert reduced[0] == reduced[1] + 2  # the weights', beside the same arrays


class TestErrors:
  @pytest.mark.parametrize(
    ("change", "message"),
    [
      ({"weight": jnp.ones(8)}, r"\['weight'\].*nothing reads.*'mask'"),
      ({"mask": [1] * 8}, r'batch\["mask"\] is a list.*array'),
      ({"mask": jnp.ones((8, 1))}, r'"mask"\].*\(8, 1\).*examples, \(8,\)'),
      ({"mask": jnp.ones(4)}, r'"mask"\].*\(4,\).*examples, \(8,\)'),
      ({"mask": jnp.ones(())}, r'"mask"\] is one number.*weights \[B\]'),
      ({"mask": 1j * jnp.ones(8)}, "where is complex64.*real"),
      ({"label": jnp.arange(8)[:, None]}, r"say labels\[:, 0\]"),
      ({"label": jnp.arange(8) > 3}, "labels.*are bool.*'int32'"),
      (
        {"label": np.arange(8) - 2**32},
        r'"label"\] hold -4294967296: .*32 bits',
      ),
      ({"label": jnp.ones((8, 3))}, r"\(8, 3\).*distributions \(8, 4\)"),
    ],
  )
  def test_a_batch_that_does_not_fit(self, change, message):
    with pytest.raises(ValueError, match=message):
      run(make_batch(np.ones(8)) | change)

  def test_a_loss_or_a_signal_without_where(self):
    plain = lambda logits, labels: LOSS(logits, labels)  # noqa: E731
    with pytest.raises(ValueError, match=r"loss takes no `where`.*mask"):
      run(make_batch(), loss=plain)
    with pytest.raises(ValueError, match=r"ascent takes no `where`.*mask"):
      run(make_batch(), ascent=lambda z, y: OBF(z, y))

  def test_labels_that_do_not_fit_a_loss_of_ones_own(self):
    batch = make_batch(np.ones(8)) | {"label": jnp.arange(8)[:, None] % 4}
    del batch["mask"]
    with pytest.raises(ValueError, match=r"say labels\[:, 0\]"):
      run(batch, loss=lambda z, y: jnp.mean(z**2))


def test_a_regression_has_no_accuracy():
  batch = make_batch(np.ones(8))
  del batch["mask"]
  batch["label"] = jnp.linspace(0, 1, 8)
  squares = lambda z, y: jnp.mean((z[:, 0] - y) ** 2)  # noqa: E731
  _, metrics = run(batch, loss=squares)
  assert "accuracy" not in metrics
  assert metrics["skipped"] == 0
