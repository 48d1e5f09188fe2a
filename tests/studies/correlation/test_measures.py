"""The study's measures are the estimators', with numbers traced."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from tiny_study import write_file

import forgetsam as fs
from forgetsam import sharpness
from forgetsam.experiment.build import build_data
from forgetsam.experiment.config import apply_overrides, load_config_file
from forgetsam.forgetting import (
  Estimate,
  model_specific_forgetting,
  offset_fn,
  probe_forgetting,
)
from forgetsam.studies.correlation import Functions, Measures, _measures

pytestmark = pytest.mark.slow

IMAGES = jax.random.normal(jax.random.key(2), (6, 8, 8, 1))
LABELS = jnp.arange(6)
LOSS = fs.softmax_cross_entropy()
OBF = fs.output_bias_forgetting


@pytest.fixture(scope="module")
def config(data_dir: Path, tmp_path_factory):
  """Of a network that perturbs with its own radius, gamma and m."""
  file = write_file(tmp_path_factory.mktemp("study"))
  config = load_config_file(f"{file}:obf")
  values = {"data.dir": data_dir, "ascent.gamma": 0.3, "perturbation.rho": 0.4}
  values |= {"micro_batch_size": 8, "ascent.activation": "softmax"}
  values["loss.name"] = "softmax_cross_entropy"
  values["forgetting.per_class"] = 4
  return apply_overrides(
    config, [f"--config.{k}={v}" for k, v in values.items()]
  )


@pytest.fixture(scope="module")
def functions(config):
  return Functions(config, 10)


@pytest.fixture(scope="module")
def logits_fn(functions):
  return lambda w, x: functions.forward(w, {}, x, train=False)[0]


@pytest.fixture(scope="module")
def weights():
  model = fs.models.create("mlp", 10, hidden=(8,))
  return fs.models.initialise(model, jax.random.key(3), (8, 8, 1))[0]


@pytest.mark.parametrize(
  ("ascent", "name", "signal", "perturbation"),
  [
    ("loss", "sam", fs.loss_ascent(LOSS), fs.sam(0.3)),
    ("loss", "asam", fs.loss_ascent(LOSS), fs.asam(0.3)),
    ("loss", "random", fs.loss_ascent(LOSS), fs.random_perturbation(0.3, 0)),
    (
      *("output_bias_forgetting", "sam"),
      *(OBF(gamma=0.4, activation="softmax"), fs.sam(0.3)),
    ),
  ],
)
def test_offsets_are_those_of_fixed_numbers(
  functions, logits_fn, weights, ascent, name, signal, perturbation
):
  delta_fn = functions.delta_fn(ascent, name)
  network = functions.network(weights, 0.3, 0.4)
  # Gamma counts where the network is right, more than by chance.
  labels = jnp.argmax(logits_fn(weights, IMAGES), axis=1)
  found = jax.jit(delta_fn)(network, IMAGES, labels, micro_batch=2)
  plain = offset_fn(logits_fn, signal, perturbation)
  expected = plain(weights, IMAGES, labels, micro_batch=2)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
    found.weights,
    expected,
  )
  assert float(found.rho) == float(found.gamma) == 0.0


def test_the_loss_is_the_one_that_was_trained(config, logits_fn, weights):
  config = apply_overrides(
    config,
    [
      "--config.loss.name=sigmoid_cross_entropy",
      "--config.loss.label_smoothing=0.5",
    ],
  )
  functions = Functions(config, 10)
  loss = fs.sigmoid_cross_entropy()
  logits = logits_fn(weights, IMAGES)
  assert functions.loss(logits, LABELS) == pytest.approx(loss(logits, LABELS))
  found = functions.delta_fn("loss", "sam")(
    functions.network(weights, 0.3), IMAGES, LABELS
  )
  ascent = jax.grad(lambda w: loss(logits_fn(w, IMAGES), LABELS))(weights)
  scale = 0.3 / optax.tree.norm(ascent)
  jax.tree.map(
    lambda a, g: np.testing.assert_allclose(a, scale * g, rtol=1e-4, atol=1e-6),
    found.weights,
    ascent,
  )


def test_radii_and_gammas_share_one_program(functions, weights):
  delta_fn = functions.delta_fn("output_bias_forgetting", "sam")
  network = functools.partial(functions.network, weights)
  traces = []

  @jax.jit
  def length(network):
    traces.append(1)
    return optax.tree.norm(delta_fn(network, IMAGES, LABELS).weights)

  assert float(length(network(0.3, 0.0))) == pytest.approx(0.3)
  assert float(length(network(0.5, 1.0))) == pytest.approx(0.5)
  assert len(traces) == 1


@pytest.fixture(scope="module")
def small():
  """Few repeats, and probes that 256 digits can fill."""
  with pytest.MonkeyPatch.context() as patch:
    for name, value in {
      "REPEATS": {"obf_probe": 2, "sam_probe": 2, "random_probe": 2},
      "OWN_REPEATS": 2,
      "SPECIFIC_REPEATS": 2,
    }.items():
      patch.setattr(_measures, name, value)
    yield


@pytest.fixture(scope="module")
def measures(small, config, functions):
  return Measures(functions, build_data(config), config)


def test_common_forgetting_is_the_estimators(measures, weights, logits_fn):
  found = measures.common_forgetting(weights)
  signal = OBF(gamma=1.0, activation="softmax")
  expected = probe_forgetting(
    logits_fn,
    offset_fn(logits_fn, signal, fs.sam(0.2)),
    weights,
    measures._examples["train"],
    measures._probes,
    m=32,
    repeats=2,
    key=jax.random.key(2024),
  )
  for given in ("conditional", "unconditional"):
    for examples in ("train", "held_out", "test"):
      report = expected[examples]
      for name, part in (("obf_probe", report.forgotten),
                         ("information", report.before)):  # fmt: skip
        estimate = getattr(part, given).jackknife
        key = f"{name}_{given}_{examples}"
        assert found[key] == pytest.approx(float(estimate.value), abs=1e-5)
        assert found[f"{key}_se"] == pytest.approx(
          float(estimate.standard_error), abs=1e-5
        )
  assert found["sam_probe_unconditional_train"] != pytest.approx(
    found["obf_probe_unconditional_train"]
  )


def test_own_forgetting_has_the_networks_numbers(
  measures, config, weights, logits_fn
):
  found = measures.own_forgetting(weights, config)
  assert found["own_length"] == pytest.approx(0.4, rel=1e-4)
  expected = probe_forgetting(
    logits_fn,
    offset_fn(logits_fn, OBF(gamma=0.3, activation="softmax"), fs.sam(0.4)),
    weights,
    measures._examples["train"],
    measures._probes,
    m=8,
    repeats=2,
    key=jax.random.key(2024),
  )["held_out"].forgotten.conditional.jackknife
  assert found["own_conditional_held_out"] == pytest.approx(
    float(expected.value), abs=1e-5
  )


def test_plain_training_forgets_nothing(measures, config, weights):
  plain = config.copy_and_resolve_references()
  plain.perturbation.name, plain.ascent.name = "none", "loss"
  found = measures.own_forgetting(weights, plain)
  assert set(found.values()) == {0.0}


def test_a_networks_m_is_its_micro_batch_or_the_batch(
  measures, config, weights, monkeypatch
):
  seen = []

  def note(*args, m, **kwargs):
    seen.append(m)
    return {}

  monkeypatch.setattr(_measures, "probe_forgetting", note)
  monkeypatch.setattr(
    _measures, "effect_over_repeats", lambda *a, **k: Estimate(0.0, 0.0)
  )
  whole = config.copy_and_resolve_references()
  whole.micro_batch_size = None
  measures.own_forgetting(weights, config)
  measures.own_forgetting(weights, whole)
  assert seen == [8, 64]


def test_specific_forgetting_is_the_excess_with_its_control(
  measures, weights, logits_fn
):
  untrained = jax.tree.map(lambda w: 0.5 * w, weights)
  found = measures.specific_forgetting(weights, untrained)
  report = model_specific_forgetting(
    logits_fn,
    offset_fn(logits_fn, fs.loss_ascent(LOSS), fs.sam(0.2)),
    weights,
    untrained,
    measures._examples["train"],
    measures._control,
    m=32,
    repeats=2,
    key=jax.random.key(2024),
  )
  assert found["specific_kl"] == pytest.approx(
    float(report.trained.kl.excess.value), abs=1e-6
  )
  assert found["specific_kl_untrained"] == pytest.approx(
    float(report.untrained.kl.excess.value), abs=1e-6
  )


def test_sharpness_is_of_the_training_loss(measures, weights, functions):
  images, labels = measures._examples["train"]
  assert len(labels) == 256
  batches = [{"image": images, "label": labels}]
  loss = sharpness.dataset_loss(functions.forward, LOSS, {}, batches)
  flat, unravel = ravel_pytree(weights)
  hessian = jax.hessian(
    lambda w: LOSS(functions.forward(unravel(w), {}, images, train=False)[0],
                   labels)
  )(flat)  # fmt: skip
  exact = np.linalg.eigvalsh(hessian)[-1]
  found = measures.sharpness(weights)
  assert found["lambda_max"] == pytest.approx(exact, rel=0.05)
  average = sharpness.average_sharpness(
    loss, weights, 3.0, jax.random.key(2024), num_samples=6
  )
  assert found["average"] == pytest.approx(float(average.value), rel=1e-4)
  whole = sharpness.m_sharpness(loss, weights, 0.1)  # grows as m shrinks
  assert found["worst_case"] > 0
  assert found["m_sharpness"] > float(whole.value)
  assert found["m_sharpness_adaptive"] > 0
  assert found["average_adaptive"] != pytest.approx(found["average"])
  assert {"trace", "trace_se", "lambda_max_bound"} <= set(found)


def test_fit_is_of_the_last_weights(measures, config, weights, functions):
  images = build_data(config)
  other = Measures(functions, images, config, test=images.validation)
  found, moved = measures.fit(weights), other.fit(weights)
  for name, split, result in (
    ("train", images.train, found),
    ("test", images.test, found),
    ("test", images.validation, moved),
  ):
    pixels = (split.images / 255 - config.data.mean[0]) / config.data.std[0]
    logits = functions.forward(weights, {}, pixels, train=False)[0]
    loss = float(LOSS(logits, jnp.asarray(split.labels)))
    assert result[f"{name}_loss"] == pytest.approx(loss, rel=1e-5)
    expected = float(np.mean(np.argmax(logits, 1) == split.labels))
    assert result[f"{name}_accuracy"] == pytest.approx(expected)
  assert found["weight_norm"] == pytest.approx(float(optax.tree.norm(weights)))


def test_the_control_has_wrong_labels_as_often_as_the_training_set(
  measures, config, functions
):
  noisy = config.copy_and_resolve_references()
  noisy.data.label_noise = 0.3
  images = build_data(noisy)
  mislabelled = Measures(functions, images, noisy)
  clean, control = (
    np.asarray(labels)
    for _, labels in (mislabelled._examples["held_out"], mislabelled._control)
  )
  assert np.mean(clean != control) == pytest.approx(0.3, abs=0.1)
  np.testing.assert_array_equal(
    measures._control[1], measures._examples["held_out"][1]
  )
