"""Every number of the paper's experiment table against the built configs.

The table is written down here once more, from the paper and its official code,
row by row; nothing is imported from the recipes but what they build.
"""

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import config_dict

import forgetsam as fs
from forgetsam.experiment import build as builders
from forgetsam.experiment.config import check_config, load_config_file

ROOT = Path(__file__).resolve().parents[2]
VIT_RUNS = {
  *("plain", "label_smoothing", "shrink_and_perturb", "sam", "sam_obf"),
  *("sam_random", "gsam", "gsam_obf", "asam", "asam_obf"),
}
SHORT_RUNS = {"plain", "sam", "sam_obf", "gsam", "gsam_obf"}
VANILLA = {"plain", "label_smoothing", "shrink_and_perturb"}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

VIT: dict[str, Any] = {
  "loss.name": "sigmoid_cross_entropy",
  "optimizer.name": "adamw",
  "optimizer.learning_rate": 3e-3,
  "schedule.min_learning_rate": 3e-5,
  "optimizer.weight_decay": 0.3,
  "epochs": 300,
  "schedule.warmup_epochs": 32.0,
  "optimizer.clip": 1.0,
  "model.head_bias": -10.0,
  "data.mean": (0.5,) * 3,
  "data.std": (0.5,) * 3,
}
RESNET: dict[str, Any] = {
  "loss.name": "softmax_cross_entropy",
  "optimizer.name": "sgdw",
  "optimizer.momentum": 0.9,
  "optimizer.learning_rate": 1.6,
  "schedule.min_learning_rate": 0.016,
  "optimizer.weight_decay": 1e-3,
  "epochs": 90,
  "schedule.warmup_epochs": 16.0,
  "optimizer.clip": None,
  "data.mean": IMAGENET_MEAN,
  "data.std": IMAGENET_STD,
  "evaluation.job_image_size": 288,
  "evaluation.job_short_side": 329,
}
IMAGENET: dict[str, Any] = {
  "seed": 42,
  "data.name": "imagenet2012",
  "data.validation": 0.0,
  "batch_size": 4096,
}
IMAGES: dict[str, Any] = {
  "data.stream": True,
  "data.crop_area": (0.05, 1.0),
  "data.crop_aspect": (3 / 4, 4 / 3),
  "data.flip": True,
  "data.image_size": 224,
  "evaluation.image_size": 224,
  "evaluation.short_side": 256,
  "evaluation.resize_method": "bicubic",
  "data.train_examples": None,
  "data.label_noise": 0.0,
  "schedule.name": "linear",
}
MODELS = {
  "imagenet_vit_s32": ("vit_s32", VIT, VIT_RUNS),
  "imagenet_vit_s16": ("vit_s16", VIT, SHORT_RUNS),
  "imagenet_resnet50": ("resnet50", RESNET, VIT_RUNS),
  "imagenet_resnet101": ("resnet101", RESNET, SHORT_RUNS),
}

# (perturbation, ascent), then rho, its minimum where it follows the learning
# rate, gamma, magnitude, and GSAM's alpha and whether it is normalised.
LOSS, OBF = "loss", "output_bias_forgetting"
TABLE: dict[tuple[str, str], tuple[Any, ...]] = {
  ("vit_s32", "sam"): ("sam", LOSS, 0.6, 0.0, None, None, None),
  ("vit_s32", "sam_obf"): ("sam", OBF, 0.6, None, 1.0, None, None),
  ("vit_s32", "sam_random"): ("random", LOSS, 0.6, None, None, None, None),
  ("vit_s32", "gsam"): ("sam", LOSS, 0.6, 0.0, None, None, (0.4, False)),
  ("vit_s32", "gsam_obf"): ("sam", OBF, 0.6, None, 1.0, None, (0.4, True)),
  ("vit_s32", "asam"): ("asam", LOSS, 6.0, None, None, "after", None),
  ("vit_s32", "asam_obf"): ("asam", OBF, 6.0, None, 1e-12, "after", None),
  ("resnet50", "sam"): ("sam", LOSS, 0.04, 0.02, None, None, None),
  ("resnet50", "sam_obf"): ("sam", OBF, 0.04, None, 1e-12, None, None),
  ("resnet50", "sam_random"): ("random", LOSS, 0.04, None, None, None, None),
  ("resnet50", "gsam"): ("sam", LOSS, 0.04, 0.02, None, None, (0.01, True)),
  ("resnet50", "gsam_obf"): (
    *("sam", OBF, 0.04, None, 1e-12, None, (0.01, False)),
  ),
  ("resnet50", "asam"): ("asam", LOSS, 0.8, 0.4, None, "before", None),
  ("resnet50", "asam_obf"): ("asam", OBF, 0.8, None, 1e-12, "before", None),
  ("vit_s16", "sam"): ("sam", LOSS, 0.6, None, None, None, None),
  ("vit_s16", "sam_obf"): ("sam", OBF, 0.6, None, 1.0, None, None),
  ("vit_s16", "gsam"): ("sam", LOSS, 0.6, 0.0, None, None, (1.0, False)),
  ("vit_s16", "gsam_obf"): ("sam", OBF, 0.6, None, 1.0, None, (0.4, True)),
  ("resnet101", "sam"): ("sam", LOSS, 0.04, 0.02, None, None, None),
  ("resnet101", "sam_obf"): ("sam", OBF, 0.04, None, 1e-12, None, None),
  ("resnet101", "gsam"): ("sam", LOSS, 0.04, 0.02, None, None, (0.01, True)),
  ("resnet101", "gsam_obf"): (
    *("sam", OBF, 0.04, None, 1e-12, None, (0.01, False)),
  ),
}
CELLS = [
  (file, variant)
  for file, (_, _, runs) in MODELS.items()
  for variant in sorted(runs)
]


def load(file: str, variant: str) -> config_dict.ConfigDict:
  return load_config_file(f"{ROOT}/configs/{file}.py:{variant}")


def value_of(config: config_dict.ConfigDict, key: str) -> Any:
  for part in key.split("."):
    config = config[part]
  return config


def check_values(
  config: config_dict.ConfigDict, expected: dict[str, Any]
) -> None:
  assert {key: value_of(config, key) for key in expected} == expected


@pytest.mark.parametrize("file", MODELS)
def test_each_file_has_the_runs_of_its_column(file: str):
  for variant in VIT_RUNS:
    if variant in MODELS[file][2]:
      load(file, variant)
    else:
      with pytest.raises(ValueError, match="unknown"):
        load(file, variant)


@pytest.mark.parametrize(("file", "variant"), CELLS)
def test_what_a_column_shares(file: str, variant: str):
  config = load(file, variant)
  model, column, _ = MODELS[file]
  check_values(config, IMAGENET | IMAGES | column | {"model.name": model})
  vanilla = variant in VANILLA
  check_values(
    config,
    {
      "micro_batch_size": 256 if vanilla else 64,
      "loss.label_smoothing": 0.1 if variant == "label_smoothing" else 0.0,
      "optimizer.shrink_and_perturb": (
        1e-5 if variant == "shrink_and_perturb" else None
      ),
    },
  )
  if vanilla:
    check_values(config, {"perturbation.name": "none", "combine.name": "none"})


@pytest.mark.parametrize(("model", "variant"), TABLE)
def test_cell(model: str, variant: str):
  config = load(f"imagenet_{model}", variant)
  name, ascent, rho, rho_min, gamma, magnitude, gap = TABLE[model, variant]
  falls = rho_min is not None
  expected: dict[str, Any] = {
    "perturbation.name": name,
    "ascent.name": ascent,
    "perturbation.rho": rho,
    "perturbation.rho_schedule": "lr_proportional" if falls else "constant",
    "perturbation.eta": 0.0,
    "combine.name": "surrogate_gap" if gap else "none",
  }
  if falls:
    expected["perturbation.rho_min"] = rho_min
  if gamma is not None:
    expected |= {"ascent.gamma": gamma, "ascent.activation": "sigmoid"}
    assert config.ascent.lam in (None, 1 / 1000)
  if magnitude is not None:
    expected["perturbation.magnitude"] = magnitude
  if gap is not None:
    expected["combine.alpha"], expected["combine.normalized"] = gap
  check_values(config, expected)


def test_the_table_has_every_perturbed_run():
  runs = {(m, v) for m, _, runs in MODELS.values() for v in runs - VANILLA}
  assert set(TABLE) == runs


CIFAR = {"cifar10": 10, "cifar100": 100}


@pytest.mark.parametrize("dataset", CIFAR)
@pytest.mark.parametrize("variant", ["plain", "sam", "sam_obf"])
@pytest.mark.parametrize("model", ["vit_s32", "resnet50"])
def test_fine_tuning(model: str, variant: str, dataset: str):
  config = load(f"finetune_{model}", f"{dataset}_{variant}")
  vit = model == "vit_s32"
  bce = vit or variant != "plain"
  expected = IMAGES | {
    "seed": 42,
    "data.name": dataset,
    "data.validation": 0.0,
    "model.name": model,
    "batch_size": 512,
    "micro_batch_size": 256 if variant == "plain" else 64,
    "epochs": 100,
    "schedule.warmup_epochs": 5.0,
    "schedule.min_learning_rate": 0.0,
    "optimizer.name": "sgdw",
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 0.0,
    "optimizer.clip": 1.0,
    "optimizer.shrink_and_perturb": None,
    "optimizer.learning_rate": 0.003 if vit else 0.01,
    "perturbation.rho": 0.05 if vit else 0.1,
    "perturbation.rho_schedule": "constant",
    "perturbation.name": "none" if variant == "plain" else "sam",
    "ascent.name": OBF if variant == "sam_obf" else LOSS,
    "ascent.gamma": 0.0,
    "ascent.lam": None,
    "ascent.activation": "sigmoid",
    "combine.name": "none",
    "loss.name": f"{'sigmoid' if bce else 'softmax'}_cross_entropy",
    "loss.label_smoothing": 0.0,
    "data.mean": (0.5,) * 3 if vit else IMAGENET_MEAN,
    "data.std": (0.5,) * 3 if vit else IMAGENET_STD,
    "evaluation.job_image_size": None,
  }
  check_values(config, expected)
  head = config.model.head_bias
  if vit:
    assert head == pytest.approx(-math.log(CIFAR[dataset]))
  else:
    assert head is None


# What the keys come to, once built.


@pytest.mark.parametrize(
  ("file", "peak", "low", "warmup", "epochs"),
  [
    ("imagenet_vit_s32", 3e-3, 3e-5, 32, 300),
    ("imagenet_resnet50", 1.6, 0.016, 16, 90),
  ],
)
def test_learning_rate_and_radius_over_training(
  file: str, peak: float, low: float, warmup: int, epochs: int
):
  config = load(file, "sam")
  per_epoch = fs.data.steps_per_epoch(1_281_167, config.batch_size)
  assert per_epoch == 313
  rate = builders.build_learning_rate(config, per_epoch)
  rho = builders.build_rho(config, rate)
  high, least = (0.6, 0.0) if "vit" in file else (0.04, 0.02)
  first, last = warmup * 313, epochs * 313
  for step, value in [
    (0, 0.0),
    (first // 2, peak / 2),
    (first, peak),
    ((first + last) // 2, (peak + low) / 2),
    (last, low),
  ]:
    assert float(rate(step)) == pytest.approx(value, rel=1e-4), step
    share = (value - low) / (peak - low)
    expected = max(0.0, least + share * (high - least))
    assert float(rho(step)) == pytest.approx(expected, rel=1e-3, abs=1e-7)


def test_what_does_not_decay():
  """None on biases, norms, arrays with one axis and position embeddings."""
  model = fs.models.create("vit_s32", 10, width=8, depth=1, num_heads=2)
  params, _ = fs.models.initialise(model, jax.random.key(0), (32, 32, 3))
  for path, decays in jax.tree_util.tree_leaves_with_path(
    builders.decays(params)
  ):
    name = jax.tree_util.keystr(path)
    assert decays == ("kernel" in name), name


def test_the_order_of_clip_adam_and_decay():
  config = load("imagenet_vit_s32", "plain")
  params = {"kernel": jnp.ones((2, 2))}
  optimizer = builders.build_optimizer(config, lambda count: 3e-3)
  grads = {"kernel": jnp.full((2, 2), 1e3)}
  updates, _ = optimizer.update(grads, optimizer.init(params), params)
  # Adam's first step is 1 whatever the gradient; decay is scaled by the rate.
  np.testing.assert_allclose(updates["kernel"], -3e-3 * 1.3, rtol=1e-4)


def test_resnets_start_their_blocks_at_zero():
  model = fs.models.create("resnet50", 10, width=4, stage_sizes=(1, 1))
  params, _ = fs.models.initialise(model, jax.random.key(0), (32, 32, 3))
  scales = [
    leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    if "scale" in jax.tree_util.keystr(path)
  ]
  assert sum(not np.any(scale) for scale in scales) == 2


@pytest.mark.parametrize(("file", "variant"), CELLS)
def test_each_run_is_accepted(
  file: str, variant: str, monkeypatch: pytest.MonkeyPatch
):
  monkeypatch.setattr("forgetsam.data.check_available", lambda *_: None)
  for devices in (1, 8, 16):
    check_config(load(file, variant), num_devices=devices)
