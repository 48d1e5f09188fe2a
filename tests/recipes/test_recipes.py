"""Every variant of the paper's recipes traces, and a smoke run of it trains."""

import json
import runpy
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from config_recorder import Recorder
from ml_collections import config_dict
from needed_options import NEEDED

import forgetsam as fs
from forgetsam import data
from forgetsam.experiment import build as builders
from forgetsam.experiment.config import (
  KEYS,
  base_config,
  check_config,
  leaves,
  load_config_file,
)
from forgetsam.experiment.jobs.train import train

ROOT = Path(__file__).resolve().parents[2]
FILES = {
  path.stem: path
  for path in sorted(ROOT.glob("configs/*.py"))
  if "paper.choose" in path.read_text()
}


def variants(name: str) -> list[str]:
  own = list(runpy.run_path(str(FILES[name]))["VARIANTS"])
  if not name.startswith("finetune"):
    return own
  return [f"{s}_{v}" for s in ("cifar10", "cifar100") for v in own]


CASES = [(name, variant) for name in FILES for variant in variants(name)]
# What is traced whole, and trained by the everyday or the long tests.
ONE_EACH = {
  "imagenet_vit_s32": "gsam_obf",
  "imagenet_vit_s16": "sam",
  "imagenet_resnet50": "sam_obf",
  "imagenet_resnet101": "plain",
  "finetune_vit_s32": "cifar100_sam_obf",
  "finetune_resnet50": "cifar10_sam",
  "cifar10_resnet18": "asam_obf",
  "cifar10_wrn28_10": "asam",
  "cifar100_wrn28_10": "plain",
  "cifar100_resnet18": "sam_obf",
}


TRAINED_EVERY_DAY = ("imagenet_vit_s32", "cifar10_resnet18")


def load(name: str, variant: str) -> config_dict.ConfigDict:
  return load_config_file(f"{FILES[name]}:{variant}")


def test_all_recipes_are_here():
  assert set(FILES) == {
    *("imagenet_vit_s32", "imagenet_vit_s16"),
    *("imagenet_resnet50", "imagenet_resnet101"),
    *("finetune_vit_s32", "finetune_resnet50", "cifar10_resnet18"),
    *("cifar10_wrn28_10", "cifar100_wrn28_10", "cifar100_resnet18"),
  }
  assert len(CASES) == 10 + 5 + 10 + 5 + 6 + 6 + 10 + 4 + 4 + 4


class OfThisSize:
  """A split with a length and no examples."""

  multi_label, classes = False, None
  eval_shape, eval_dtype = (8, 8, 3), np.dtype(np.float32)

  def __init__(self, num_classes: int, count: int):
    self.num_classes, self._count = num_classes, count

  def __len__(self) -> int:
    return self._count

  def train_batches(self, **_: Any) -> Any:
    raise AssertionError("tracing reads no examples")

  eval_batches = train_indices = train_batches


def sources_like(config: config_dict.ConfigDict) -> data.Sources:
  """Stands for the configured set: its sizes, without its examples."""
  classes = {"imagenet2012": 1000, "cifar10": 10, "cifar100": 100}
  count = {"imagenet2012": 1_281_167}.get(config.data.name, 50_000)
  size = config.data.image_size if config.data.stream else 32
  split: Any = OfThisSize(classes[config.data.name], count)
  return data.Sources(
    config.data.name, split.num_classes, (size, size, 3), split, None, split
  )


@pytest.mark.parametrize(
  ("name", "variant"),
  [
    # Of these recipes, others are the same models with another loss or norm.
    pytest.param(*case, marks=pytest.mark.long)
    if case[0] in ("cifar10_wrn28_10", "cifar100_wrn28_10", "cifar100_resnet18")
    and ONE_EACH[case[0]] != case[1]
    else case
    for case in CASES
  ],
)
def test_traces_at_full_size(name: str, variant: str):
  """Step and evaluation of the recipe's model, without arithmetic.

  A batch is one micro-batch: more repeat the same, and take as much longer. So
  do blocks, and one variant of each file has them all.
  """
  config = load(name, variant)
  config.batch_size = config.micro_batch_size or config.batch_size
  if ONE_EACH[name] != variant:
    if config.model.name.startswith("vit"):
      config.model.depth = 1
    else:
      config.model.stage_sizes = (1, 1, 1, 1)
  experiment = builders.build_experiment(config, sources_like(config))
  state = jax.eval_shape(experiment.create_state)
  shape = experiment.sources.image_shape
  batch = {
    "image": jax.ShapeDtypeStruct((config.batch_size, *shape), jnp.float32),
    "label": jax.ShapeDtypeStruct((config.batch_size,), jnp.int32),
  }
  key = jax.eval_shape(lambda: jax.random.key(0))
  after, metrics = jax.eval_shape(experiment.train_step, state, batch, key)
  assert jax.tree.structure(after) == jax.tree.structure(state)
  assert {"loss", "grad_norm", "skipped"} <= set(metrics)
  assert ("perturbed_loss" in metrics) == (config.perturbation.name != "none")
  sums = jax.eval_shape(
    experiment.eval_step, state.params, state.model_state, batch
  )
  assert sums["count"].shape == ()


@pytest.mark.parametrize(
  "name", [n for n in FILES if not n.startswith("cifar")]
)
def test_no_leaf_goes_unread(name: str, monkeypatch: pytest.MonkeyPatch):
  """By some variant, as it is or with another choice of a `name`.

  Recipes in memory are read in tests/experiment/config/test_configs.py.
  """
  stand_in = sources_like(load(name, variants(name)[0]))
  monkeypatch.setattr(data, "stream", lambda *_, **__: stand_in)
  seen: set[str] = set()
  all_of_file = variants(name)
  choices = (
    {"optimizer.name": "sgdw"},
    {"perturbation.rho_schedule": "lr_proportional"},
    {"perturbation.name": "sam", "look_sam.k": 2},
    *(
      {"perturbation.name": p}
      for p in KEYS["perturbation.name"].rule.choices
      if p not in NEEDED
    ),
    *(
      {"perturbation.name": "sam", "combine.name": c}
      for c in KEYS["combine.name"].rule.choices
      if c not in NEEDED
    ),
  )
  for variant, changes in [
    *((variant, {}) for variant in all_of_file),
    *((all_of_file[0], changes) for changes in choices),
  ]:
    config = load(name, variant)
    config.model = base_config().model
    config.model.name = "mlp"
    config.update_from_flattened_dict(changes)
    builders.build_experiment(Recorder(config, seen, ""))
    builders.build_sources(Recorder(config, seen, ""), job=True)
  # Refused where sets are streamed, but for their neutral value.
  checked = {"data.label_noise", "data.crop_padding"}
  of_jobs = (
    *("evaluation.sets", "sharpness.", "forgetting.", "log.wandb"),
    *("modules", "data.memory_limit"),  # of modules and files of one's own
  )
  unread = {k for k in leaves(config) if k not in seen}
  assert {k for k in unread if not k.startswith(of_jobs)} == checked


@pytest.mark.parametrize("name", FILES)
def test_variants_share_their_keys(name: str):
  for variant in variants(name):
    assert set(leaves(load(name, variant))) >= set(KEYS)


def test_smoke_shrinks_numbers_and_keeps_the_structure():
  for name, variant in CASES:
    full = leaves(load(name, variant))
    small = leaves(load(name, f"{variant},smoke"))
    differing = {key for key in full if full[key] != small[key]}
    assert all(not isinstance(small[key], str) for key in differing)
    kept = ("optimizer.", "perturbation.", "ascent.", "combine.", "loss.")
    assert not any(key.startswith(kept) for key in differing)
    assert small["data.train_examples"] / small["batch_size"] == 2


@pytest.mark.parametrize(
  ("name", "variant", "rho"),
  [
    ("cifar10_wrn28_10", "sam", 0.05),
    ("cifar100_wrn28_10", "sam_obf", 0.1),
    ("cifar100_resnet18", "asam", 1.0),
  ],
)
def test_radii_are_the_published_ones(name: str, variant: str, rho: float):
  config = load(name, variant)
  assert config.perturbation.rho == pytest.approx(rho)
  assert (config.batch_size, config.micro_batch_size) == (256, 32)
  assert name.startswith(f"{config.data.name}_")


def test_unknown_options_are_refused():
  with pytest.raises(ValueError, match="allowed: smoke"):
    load("imagenet_vit_s32", "sam,smok")
  with pytest.raises(ValueError, match="allowed: plain, sam"):
    load("imagenet_vit_s16", "asam")
  with pytest.raises(ValueError, match="cifar10_ or cifar100_"):
    load("finetune_vit_s32", "sam")


@pytest.fixture(autouse=True)
def _one_device(monkeypatch: pytest.MonkeyPatch) -> None:
  """Eight devices would need batches of eight micro-batches."""
  monkeypatch.setattr(jax, "local_device_count", lambda: 1)


def smoke_run(
  name: str, variant: str, directory: Path, workdir: Path
) -> dict[str, Any]:
  config = load(name, f"{variant},smoke")
  config.data.dir = str(directory)
  check_config(config, 1)
  return train(config, workdir)


def check_smoke_run(summary: dict[str, Any], workdir: Path) -> None:
  assert summary["steps"] == 2
  assert np.isfinite(summary["train/loss"])
  assert np.isfinite(summary["test/loss"])
  saved = json.loads((workdir / "summary.json").read_text())
  assert saved["params_sha256"] == summary["params_sha256"]
  _, variables, _ = fs.load_run(workdir)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables))


@pytest.mark.slow
@pytest.mark.parametrize(
  "name",
  [
    pytest.param(n, marks=[] if n in TRAINED_EVERY_DAY else pytest.mark.long)
    for n in FILES
  ],
)
def test_one_variant_of_each_file_trains(
  name: str, made_up_dir: Path, tmp_path: Path
):
  summary = smoke_run(name, ONE_EACH[name], made_up_dir, tmp_path)
  check_smoke_run(summary, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize(
  ("name", "variant"), [c for c in CASES if ONE_EACH[c[0]] != c[1]]
)
def test_every_variant_trains(
  name: str, variant: str, made_up_dir: Path, tmp_path: Path
):
  summary = smoke_run(name, variant, made_up_dir, tmp_path)
  check_smoke_run(summary, tmp_path)
