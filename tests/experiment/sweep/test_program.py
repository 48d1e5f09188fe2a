"""Which keys are traced, and that nothing is lost on the way."""

from pathlib import Path

import pytest
from made_up_images import made_up
from sweep_runs import tiny_config

from forgetsam.experiment import base_config
from forgetsam.experiment.build import build_sources
from forgetsam.experiment.config import KEYS, config_from_dict, config_to_dict
from forgetsam.experiment.sweep._program import (
  TRACED,
  put_together,
  take_apart,
  traced_keys,
)

MINE = """
import jax.numpy as jnp
import forgetsam as fs

def scaled(logits, labels, factor=1.0):
  return factor * fs.softmax_cross_entropy()(logits, labels)

def sam_or_not(rho, strength=1.0):
  return fs.sam(rho) if strength > 0.5 else fs.scale_to_radius(rho)
"""


def test_every_number_of_the_method_is_traced():
  # These decide counts of steps or of examples.
  counts = {
    "schedule.warmup_epochs",
    "perturbation.start",
    "perturbation.stop",
    "ascent.fraction",
  }
  numbers = {
    key
    for key, row in KEYS.items()
    if row.rule.kind is float
    and not key.startswith(("data.", "sharpness.", "forgetting.", "model."))
  }
  assert numbers - counts == set(TRACED) - {"seed"}


def test_the_parts_make_the_same_configuration(tmp_path: Path):
  config = tiny_config(tmp_path, "asam_obf", seed=5, ascent__lam=0.2)
  parts = take_apart(config)
  whole = put_together(parts.frame, parts.numbers)
  assert config_to_dict(whole) == config_to_dict(config)
  assert parts.numbers["seed"] == 5
  assert parts.numbers["ascent.lam"] == 0.2
  assert "optimizer.shrink_and_perturb" not in parts.numbers  # it is none
  moved = put_together(parts.frame, parts.numbers | {"perturbation.rho": 0.7})
  assert moved.perturbation.rho == 0.7


@pytest.mark.parametrize(
  ("key", "value", "shared"),
  [
    ("perturbation__rho", 0.7, True),
    ("seed", 9, True),
    ("data__label_noise", 0.2, True),
    ("evaluation__batch_size", 128, True),
    ("micro_batch_size", 16, False),
    ("epochs", 3, False),
    ("model__hidden", (9,), False),
    ("perturbation__magnitude", "after", False),
    ("optimizer__clip", None, False),
    ("ascent__lam", 0.3, False),  # none before
  ],
)
def test_what_shares_a_program(
  key: str, value: object, shared: bool, tmp_path: Path
):
  one = take_apart(tiny_config(tmp_path, "asam_obf"))
  other = take_apart(tiny_config(tmp_path, "asam_obf", **{key: value}))
  assert (one.shape == other.shape) is shared


def test_an_integer_where_others_have_a_float_shares_the_program(
  tmp_path: Path,
):
  # JAX compiles for integers and floats apart.
  values = config_to_dict(tiny_config(tmp_path, "obf"))
  values["optimizer"]["weight_decay"] = 0
  numbers = take_apart(config_from_dict(values)).numbers
  assert {type(v) for k, v in numbers.items() if k != "seed"} == {float}
  assert type(numbers["seed"]) is int


def test_options_are_traced_where_their_component_accepts_it(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  devices = "forgetsam.experiment.build._experiment.num_devices"
  monkeypatch.setattr(devices, lambda: 1)
  (tmp_path / "mine.py").write_text(MINE)
  config = base_config()
  config.modules, config.model.hidden = (str(tmp_path),), (2,)
  config.batch_size, config.micro_batch_size, config.epochs = 16, None, 1
  config.loss.name, config.perturbation.name = "mine:scaled", "mine:sam_or_not"
  config.loss.options = {"factor": 2.0}
  config.perturbation.options = {"strength": 1.0}
  sources = build_sources(config, made_up())
  found = traced_keys(config, sources)
  options = {key for key in found if "options" in key}
  assert options == {"loss.options.factor"}
  assert set(TRACED) <= set(found)
  other = config.copy_and_resolve_references()
  for key, shares in [("factor", True), ("strength", False)]:
    group = "loss" if key == "factor" else "perturbation"
    other[group].options[key] = 0.75
    shapes = [take_apart(one, found).shape for one in (config, other)]
    assert (shapes[0] == shapes[1]) is shares
  assert take_apart(other, found).numbers["loss.options.factor"] == 0.75
  assert traced_keys(base_config(), sources) == TRACED
