"""One rule makes components of names, and refuses what does not fit."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import config_dict

from forgetsam.experiment import apply_variant, base_config, build
from forgetsam.experiment.config import (
  ConfigError,
  apply_overrides,
  build_component,
  check_config,
  config_from_dict,
  config_hash,
  config_to_dict,
  leaves,
)

MINE = """
import dataclasses

import flax.linen as nn
import optax
from flax import nnx

from forgetsam import perturbed_gradient

class Net(nn.Module):
  num_classes: int
  width: int

class Small(nnx.Module):
  def __init__(self, num_classes, *, rngs, width=2):
    self.dense = nnx.Linear(width, num_classes, rngs=rngs)

  def __call__(self, x):
    return self.dense(x)

@dataclasses.dataclass
class Scaled:
  scale: float = 2.0

  def __call__(self, logits, labels):
    return self.scale

class Rule:
  @staticmethod
  def halved(ascent_grads, delta, grads):
    return grads / 2

def focal(logits, labels, gamma=2.0):
  return gamma

def make_focal(gamma):
  return lambda logits, labels: gamma

def steep(logits, labels, power):
  return power

def flat(z, y, power):
  return power

def of_classes(logits, labels, num_classes):
  return num_classes

def ascend(logits, labels, loss, gamma):
  return loss(logits, labels) + gamma

def shrinking(rho, seed, decay=0.5):
  return optax.scale(decay)

def halved(perturbation, scale=0.5):
  return optax.chain(perturbed_gradient(perturbation), optax.scale(scale))

def alone(rho):
  return optax.scale(2.0)

def fails(rho):
  raise RuntimeError("no such luck")

def exits(rho):
  raise SystemExit(3)

def nothing(rho):
  return None

def of_another_kind(rho):
  return {"not": "a transform"}

def radius(step):
  return 0.1 * step

def falling(learning_rate, num_steps, power=1.0):
  return lambda step: learning_rate * (1 - step / num_steps) ** power

def free(learning_rate, **options):
  return optax.sgd(learning_rate, **options)

made = optax.sgd(0.1)
seven = 7
"""


@pytest.fixture
def config(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> config_dict.ConfigDict:
  monkeypatch.setattr("forgetsam.data.check_available", lambda *_: None)
  (tmp_path / "mine.py").write_text(MINE)
  config = base_config()
  config.modules = (str(tmp_path),)
  return apply_variant(config, "sam")


def override(config: config_dict.ConfigDict, *flags: str) -> Any:
  return apply_overrides(config, [f"--config.{flag}" for flag in flags])


def test_options_are_typed_as_literals(config: config_dict.ConfigDict):
  override(
    config,
    "model.options.a=12",
    "model.options.b=1e-3",
    "model.options.c=(1, (2, 3))",
    "model.options.d=None",
    "model.options.e=true",
    "model.options.f=relu",
    "model.options.g='12'",
    "model.options.h.i=2",
    "model.options.j",
  )
  override(config, "model.options.a=1.5")  # of another type than before
  expected = {"a": 1.5, "b": 1e-3, "c": (1, (2, 3)), "d": None, "e": True}
  expected |= {"f": "relu", "g": "12", "h": {"i": 2}, "j": True}
  assert config.model.options.to_dict() == expected
  again = config_from_dict(config_to_dict(config))
  assert leaves(again) == leaves(config)
  with pytest.raises(ConfigError, match=r"options\.h=.*\n.*one flag for each"):
    override(config, "model.options.h={'i': 2}")


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"x", object()])
def test_options_are_json_values(value: Any, config: config_dict.ConfigDict):
  config.loss.options.x = value
  with pytest.raises(ConfigError, match=r"loss\.options\.x=.*\n.*a number"):
    check_config(config, 1)


def test_options_belong_to_the_hash_and_their_groups_do_not():
  values = config_to_dict(base_config())
  assert values["model"]["options"] == {}
  before = config_hash(values)
  for group in ("model", "optimizer"):
    del values[group]["options"]
  assert config_hash(values) == before
  values["model"]["options"] = {"width": 3}
  assert config_hash(values) != before


def test_configs_and_variants_set_options():
  config = base_config()
  config.optimizer.options = {"b1": 0.8}
  apply_variant(config, "v", {"v": {"optimizer.options.b2": 0.9}})
  check_config(config, 1)
  assert config.optimizer.options.to_dict() == {"b1": 0.8, "b2": 0.9}


def built(config: config_dict.ConfigDict, kind: str, **offers: Any) -> Any:
  check_config(config, 1)
  return build_component(config, kind, **offers)


def test_a_factory_a_component_and_an_instance(config: config_dict.ConfigDict):
  override(config, "loss.name=mine:focal", "loss.options.gamma=3.0")
  assert built(config, "loss", num_classes=5)(0, 0) == 3.0
  override(config, "loss.name=mine:make_focal")
  assert built(config, "loss", num_classes=5)(0, 0) == 3.0
  with config.unlocked():
    del config.loss.options["gamma"]
  override(config, "loss.name=mine:of_classes")
  assert built(config, "loss", num_classes=5)(0, 0) == 5
  override(config, "ascent.name=mine:ascend", "ascent.gamma=0.25")
  loss = build.build_loss(config, 5)
  assert built(config, "ascent", loss=loss, num_classes=5)(0, 0) == 5.25
  override(config, "combine.name=mine:Rule.halved")
  assert built(config, "combine")(0, 0, 4) == 2
  override(config, "optimizer.name=mine:made")
  assert isinstance(built(config, "optimizer"), optax.GradientTransformation)
  override(config, "loss.name=mine:Scaled")
  assert hash(built(config, "loss"))  # programs are kept by it


def test_what_the_signature_names_is_given(config: config_dict.ConfigDict):
  override(
    config,
    "perturbation.name=mine:shrinking",
    "perturbation.decay=0.25",
    "model.name=mine:Net",
    "model.options.width=3",
    "schedule.name=mine:falling",
    "schedule.options.power=2",
    "schedule.warmup_epochs=0",
    "perturbation.rho_schedule=mine:radius",
    "epochs=2",
  )
  check_config(config, 1)
  scaled = build_component(config, "perturbation", rho=lambda step: 0.1, seed=0)
  assert scaled.update(4.0, scaled.init(None))[0] == 1.0
  model: Any = build.build_model(config, 7)
  assert (model.num_classes, model.width) == (7, 3)
  rate = build.build_learning_rate(config, 10)
  assert float(rate(10)) == pytest.approx(1e-3 / 4)
  assert float(build.build_rho(config, rate, 20)(3)) == pytest.approx(0.3)
  override(config, "model.name=mine:Small")
  check_config(config, 1)
  params = build.build_model(config, 7).init(jax.random.key(0), jnp.ones(3))
  assert params["params"]["dense"]["kernel"].shape == (3, 7)


W = {"kernel": jnp.array([[3.0, 4.0]])}


@pytest.mark.parametrize(
  ("flags", "expected"),
  [
    (["name=adamw"], optax.adamw(0.1, weight_decay=0.02)),
    (
      ["name=lion", "options.b2=0.9"],
      optax.lion(0.1, b2=0.9, weight_decay=0.02),
    ),
    (["name=optax:lamb"], optax.lamb(0.1, weight_decay=0.02)),
    (["name=sgd", "weight_decay=0"], optax.sgd(0.1, momentum=0.9)),
    (["name=muon"], optax.contrib.muon(0.1, weight_decay=0.02)),
    (
      ["name=mine:free", "options.nesterov=true", "options.momentum=0.5"],
      optax.sgd(0.1, momentum=0.5, nesterov=True),
    ),
  ],
)
def test_optimizers_are_those_of_optax(
  flags: list[str],
  expected: optax.GradientTransformation,
  config: config_dict.ConfigDict,
):
  override(config, "optimizer.weight_decay=0.02")
  override(config, *(f"optimizer.{flag}" for flag in flags))
  check_config(config, 1)
  ours = build.build_optimizer(config, lambda step: jnp.float32(0.1))
  found, _ = ours.update(W, ours.init(W), W)
  wanted, _ = expected.update(W, expected.init(W), W)
  np.testing.assert_allclose(found["kernel"], wanted["kernel"], rtol=1e-6)


@pytest.mark.parametrize(
  ("name", "rates"),
  [
    ("constant", [0.0, 0.5, 1.0, 1.0, 1.0, 1.0]),
    ("wsd", [0.0, 0.5, 1.0, 1.0, 1.0, 0.55]),
    ("optax:warmup_cosine_decay_schedule", [0.0, 0.5, 1.0, 0.868, 0.55, 0.232]),
  ],
)
def test_schedules_of_other_names(
  name: str, rates: list[float], config: config_dict.ConfigDict
):
  override(config, f"schedule.name={name}", "optimizer.learning_rate=1.0")
  override(config, "epochs=6", "schedule.warmup_epochs=2")
  if name != "constant":
    override(config, "schedule.min_learning_rate=0.1")
  if name == "wsd":
    override(config, "schedule.options.decay_fraction=0.333")
  check_config(config, 1)
  rate = build.build_learning_rate(config, steps_per_epoch=1)
  found = [float(rate(step)) for step in range(6)]
  np.testing.assert_allclose(found, rates, atol=1e-3)


def test_a_method_is_given_the_perturbation(config: config_dict.ConfigDict):
  override(config, "method.name=mine:halved", "method.options.scale=0.25")
  override(config, "perturbation.name=sam", "perturbation.layers=norm")
  check_config(config, 1)
  params = {"norm": {"scale": jnp.array([4.0])}, "w": jnp.array([8.0])}
  perturb = build.build_perturb(config, lambda step: 1.0, seed=0, num_steps=2)
  assert perturb is not None
  grads, _ = perturb.update(
    params, perturb.init(params), params, grad_fn=lambda p: p
  )
  assert grads == {"norm": {"scale": 1.25}, "w": 2.0}
  rule = build_component(config, "combine")
  assert rule is None
  override(config, "combine.name=optax:ema", "combine.options.decay=0.9")
  assert isinstance(
    build_component(config, "combine"), optax.GradientTransformation
  )


_ALONE = ["method.name=mine:alone"]
REFUSED = [
  (["combine.name=xsam"], r"combine\.options\.rho_max is missing"),
  (["loss.name=mine:make_focal"], r"loss\.options\.gamma is missing\n.*needs"),
  (["loss.name=mine:steep"], r"loss\.options\.power is missing"),
  (["loss.name=mine:flat"], r"loss\.options\.power is missing"),
  (["loss.name=mine:focal", "loss.options.gama=1"], "gama=1.*\n.*is gamma"),
  (["loss.name=mine:foca"], "no 'foca'; the closest name is focal"),
  (["loss.name=mine:seven"], "mine:seven' is refused\n.*makes int '7'"),
  (["loss.name=nothere:x"], "'nothere' is neither in .* nor on"),
  (["loss.name=focal"], r"loss\.name='focal'.*\n.*or module:attribute"),
  (["model.name=mine:Net"], r"model\.options\.width is missing"),
  (["model.name=mine:focal"], r"model\.options\.logits is missing"),
  (
    ["model.name=mine:Net", "model.options.width=3", "model.dropout=0.1"],
    r"model\.dropout=0.1.*\n.*takes no dropout",
  ),
  (
    ["model.options.hidden=(3,)", "model.hidden=(4,)"],
    r"hidden=.*\n.*left out",
  ),
  (
    ["model.options.depth=3"],
    r"model\.options\.depth=3.*\n.*no option 'depth'",
  ),
  (["model.options.hidden=(0,)"], r"model\.options\.hidden=\(0,\)"),
  (["perturbation.name=mine:fails"], r"line \d+: RuntimeError: no such luck"),
  (["perturbation.name=mine:exits"], "SystemExit: 3"),
  (["perturbation.name=mine:nothing"], "makes NoneType"),
  (["perturbation.name=mine:of_another_kind"], "GradientTransf.*makes dict"),
  (
    ["method.name=mine:halved", "perturbation.name=none"],
    r"method\.name='mine:halved'.*\n.*config.perturbation.name=none",
  ),
  (
    [*_ALONE, "perturbation.name=asam"],
    r"perturbation\.name='asam'.*\n.*sam where .*takes no perturbation",
  ),
  (
    [*_ALONE, "perturbation.name=sam", "perturbation.steps=2"],
    r"steps=2.*\n.*1 where .*takes no perturbation",
  ),
  (
    [*_ALONE, "perturbation.name=sam", "combine.name=weighted"],
    r"combine\.name='weighted'.*\n.*none where .*takes no combine",
  ),
  (
    ["perturbation.name=mine:shrinking", "perturbation.eta=0.1"],
    r"perturbation\.eta=0.1.*\n.*takes no eta",
  ),
  (
    ["perturbation.name=mine:shrinking", "perturbation.options.seed=3"],
    r"options\.seed=3.*\n.*training gives",
  ),
  (
    [
      *("perturbation.name=asam", "perturbation.eta=0.1"),
      "perturbation.options.eta=0.2",
    ],
    r"options\.eta=0.2.*\n.*perturbation\.eta=0.1 gives it",
  ),
  (
    ["optimizer.name=sgd", "optimizer.weight_decay=0.1"],
    "takes no weight_decay",
  ),
  (
    ["optimizer.name=optax:scale_by_adam", "optimizer.learning_rate=0.1"],
    r"optimizer\.learning_rate=0.1.*\n.*takes no learning_rate",
  ),
  (
    ["optimizer.name=mine:made", "optimizer.weight_decay=0.1"],
    "takes no weight_decay",
  ),
  (["model.options.num_classes=3"], "multiple values for .*num_classes"),
  (["optimizer.name=lbfgs"], "takes gradients alone"),
  (["optimizer.name=scale_by_adam"], "another optimizer of optax"),
  (["optimizer.name=mine:made", "optimizer.options.x=1"], "made already"),
  (["schedule.name=mine:falling"], None),
  (
    ["schedule.name=mine:falling", "schedule.warmup_epochs=5"],
    r"warmup_epochs=5.0.*\n.*1.0 or 0 where .*no warmup_steps",
  ),
  (
    ["schedule.name=constant", "schedule.min_learning_rate=1e-4"],
    "takes no min_learning_rate",
  ),
  (["augmentation.options.x=1"], r"augmentation\.options\.x=1.*\n.*has none"),
  (["data.options.x=1"], r"data\.options\.x=1"),
]


@pytest.mark.parametrize(("flags", "said"), REFUSED, ids=lambda x: str(x)[:50])
def test_what_does_not_fit_is_refused(
  flags: list[str], said: str | None, config: config_dict.ConfigDict
):
  override(config, *flags)
  if said is None:  # the default warm-up is not in its way
    return check_config(config, 1)
  with pytest.raises(ConfigError, match=said):
    check_config(config, 1)
