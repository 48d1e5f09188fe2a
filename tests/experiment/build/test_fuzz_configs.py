"""Any configuration either traces, or is refused by the name of a key.

Values are drawn from each key's rule, so that new keys are drawn from as soon
as they have one. FUZZ_DRAWS=1000 draws that many, other ones each time.
"""

import datetime
import os
import random
import re
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_up_images import made_up
from ml_collections import config_dict
from tiny_runs import ROOT

from forgetsam.experiment import build as builders
from forgetsam.experiment.config import (
  KEYS,
  ConfigError,
  check_config,
  is_model_option,
  load_config_file,
)

pytestmark = pytest.mark.slow

DRAWS = int(os.environ.get("FUZZ_DRAWS", "0"))
# Two on an idle core; what they may take on a busy one.
SECONDS = 30

NAN, INF = float("nan"), float("inf")
ANY = [None, True, "abc", 1.5, 3, -1, (), (0.5,), NAN, INF, "", 2**63]
POOLS: dict[type, list[Any]] = {
  float: [0, 0.0, 1e-12, 0.05, 0.3, 0.5, 0.9, 1, 1.0, 2.5, -0.5, 1e6, 1e12],
  int: [0, 1, 2, 3, 4, 7, 8, 16, 24, 32, 40, 64, 100, 2**31, 2**32 + 7],
  bool: [True, False],
  str: ["none", "all", "digits", "sam", "obf", "a,b", "sam,random"],
  tuple: [(0.5,), (0.1, 0.2, 0.3), (0.5, 1.0), (1.0, 0.5), (0.0,), (2, 3)],
}
MODEL_OPTIONS: dict[str, list[Any]] = {
  "model.name": ["mlp", "cnn", "vit_tiny", "vit", "resnet"],
  "model.hidden": [(4,), (4, 3), (), (0,), ("a",)],
  "model.activation": ["gelu", "relu", "tanh", "tahn"],
  "model.widths": [(2,), (2, 3), (0,)],
  "model.batch_norm": [True, False],
  "model.stage_sizes": [(1, 1, 1, 1), (1,), (0,)],
  "model.patch_size": [1, 2, 3, 4, 8, 16, 0],
  "model.width": [4, 6, 8, 16, 7],
  "model.depth": [1, 2, 0],
  "model.num_heads": [1, 2, 3, 0],
  "model.mlp_ratio": [1, 2, 4, 0],
  "model.dropout": [0.0, 0.1, 0.999, 1.0],
  "model.head_bias": [0.0, -10.0, NAN],
  "model.remat": [True, False],
  "model.dtype": ["float32", "bfloat16", "float16", "int8", "float64"],
}
VARIANTS = ("plain", "sam", "obf", "random", "asam", "gsam", "gsam_obf")


def pool(key: str, valid: bool) -> list[Any]:
  """Values to try for a key: its rule's, or any."""
  if key in MODEL_OPTIONS:
    return MODEL_OPTIONS[key] + ([] if valid else ANY)
  row = KEYS[key]
  values = [*row.rule.choices, *POOLS[row.rule.kind], *ANY]
  return [v for v in values if row.admits(v)] if valid else values


def base(variant: str) -> config_dict.ConfigDict:
  config = load_config_file(f"{ROOT}/configs/digits.py:{variant}")
  config.update_from_flattened_dict(
    {
      "batch_size": 16,
      "micro_batch_size": 2,
      "epochs": 2,
      "model.name": "mlp",
      "model.hidden": (4,),
      "evaluation.batch_size": 16,
    }
  )
  return config


DRAWN = sorted(KEYS.keys() - {"init_from"})


def test_every_key_has_values_to_draw():
  for key in DRAWN:
    assert is_model_option(key) <= (key in MODEL_OPTIONS), key
    assert pool(key, valid=True), key


def draw(
  r: random.Random, honest: float
) -> tuple[config_dict.ConfigDict, dict[str, Any]]:
  """A configuration with a few keys changed, and the changes."""
  config = base(r.choice(VARIANTS))
  changes: dict[str, Any] = {}
  for key in r.sample(DRAWN, r.randint(1, 6)):
    changes[key] = r.choice(pool(key, valid=r.random() < honest))
  nested = config.to_dict()
  for key, value in changes.items():
    *parents, name = key.split(".")
    holder = nested
    for parent in parents:
      holder = holder[parent]
    holder[name] = value
  return config_dict.ConfigDict(nested), changes


@pytest.fixture(autouse=True)
def sets_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr("forgetsam.data.check_available", lambda *_: None)


def experiment_of(config: config_dict.ConfigDict) -> builders.Experiment:
  """Builds a run's parts on a made-up set; refuses as a run does."""
  check_config(config, jax.local_device_count())
  config = config.copy_and_resolve_references()
  channels = len(config.data.mean)
  channels = channels if channels in (1, 3) else 1
  with config.unlocked():
    config.data.stream = False  # its own checks are made by now
    sources = builders.build_sources(config, made_up(channels))
  return builders.build_experiment(config, sources)


def trace(experiment: builders.Experiment, batch_size: int) -> None:
  state = jax.eval_shape(experiment.create_state)
  shape = experiment.sources.image_shape
  batch = {
    "image": jax.ShapeDtypeStruct((batch_size, *shape), jnp.float32),
    "label": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
  }
  key = jax.eval_shape(lambda: jax.random.key(0))
  after, _ = jax.eval_shape(experiment.train_step, state, batch, key)
  assert jax.tree.structure(after) == jax.tree.structure(state)
  jax.eval_shape(experiment.eval_step, state.params, state.model_state, batch)
  for schedule in experiment.schedules.values():
    assert np.isfinite(float(schedule(0)))


def outcome(config: config_dict.ConfigDict, changes: dict[str, Any]) -> str:
  """Whether it traces or is refused; fails where it does neither."""
  start = time.monotonic()
  try:
    trace(experiment_of(config), config.batch_size)
    found = "traced"
  except ConfigError as error:
    found = str(error)
  # Not always a key that was changed: it may be what no longer fits it.
  named = re.findall(r"config\.([a-z_.0-9]+)", found)
  known = [key for key in named if key in DRAWN or ".options." in key]
  assert found == "traced" or known, f"{changes}: {found}"
  assert time.monotonic() - start < SECONDS
  return "traced" if found == "traced" else "refused"


@settings(
  max_examples=DRAWS or 60,
  derandomize=not DRAWS,
  database=None,
  deadline=datetime.timedelta(seconds=SECONDS),
  suppress_health_check=list(HealthCheck),
)
@given(st.randoms(use_true_random=False), st.sampled_from([0.7, 1.0]))
def test_a_draw_traces_or_is_refused_by_name(r: random.Random, honest: float):
  outcome(*draw(r, honest))


@pytest.mark.parametrize("seed", range(5))
def test_fixed_draws_take_two_steps(seed: int):
  r = random.Random(seed)
  while True:
    config, changes = draw(r, honest=1.0)
    try:
      experiment = experiment_of(config)
    except ConfigError:
      continue
    break
  print(f"seed {seed}: {changes}")
  state = experiment.create_state()
  skipped = 0
  for batch in experiment.train_batches(0, 2):
    state, metrics = experiment.train_step(state, batch, experiment.key)
    skipped += int(metrics["skipped"])
  assert int(state.step) + skipped == 2
  assert all(jnp.all(jnp.isfinite(w)) for w in jax.tree.leaves(state.params))
