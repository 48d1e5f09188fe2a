"""Which keys are traced, and that nothing is lost on the way."""

from pathlib import Path

import pytest
from sweep_runs import tiny_config

from forgetsam.experiment.config import KEYS, config_from_dict, config_to_dict
from forgetsam.experiment.sweep._program import (
  TRACED,
  put_together,
  take_apart,
)


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
