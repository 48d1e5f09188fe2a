"""Every recipe builds, has the same keys, and none of its keys goes unread."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from config_recorder import Recorder
from made_up_images import made_up
from ml_collections import config_dict
from needed_options import NEEDED

import forgetsam as fs
from forgetsam import data
from forgetsam.experiment import build as builders
from forgetsam.experiment.config import (
  KEYS,
  apply_overrides,
  check_config,
  config_from_dict,
  config_hash,
  config_to_dict,
  differing_keys,
  leaves,
  load_config_file,
)

ROOT = Path(__file__).resolve().parents[3]
FILES = sorted(
  path
  for path in ROOT.glob("configs/*.py")
  if "apply_variant(config, variant)" in path.read_text()
)
DIGITS = ROOT / "configs" / "digits.py"
VARIANTS = [
  *("plain", "sam", "obf", "random", "asam", "asam_obf", "gsam", "gsam_obf")
]


CHEAP = tuple(
  runpy.run_path(str(ROOT / "configs/cheap_fashion_2k.py"))["VARIANTS"]
)


def load(file: Path, variant: str) -> config_dict.ConfigDict:
  return load_config_file(f"{file}:{variant}")


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("file", FILES, ids=lambda p: p.stem)
def test_every_variant_is_accepted(
  file: Path, variant: str, monkeypatch: pytest.MonkeyPatch
):
  # The set itself need not be on the machine that runs this.
  monkeypatch.setattr("forgetsam.data.check_available", lambda *_: None)
  check_config(load(file, variant), num_devices=1)


@pytest.mark.parametrize("variant", CHEAP)
def test_every_cheap_variant_is_accepted(
  variant: str, monkeypatch: pytest.MonkeyPatch
):
  monkeypatch.setattr("forgetsam.data.check_available", lambda *_: None)
  file = ROOT / "configs/cheap_fashion_2k.py"
  config = load(file, variant)
  check_config(config, num_devices=1)
  assert config.data.label_noise == 0.2


@pytest.mark.parametrize("file", FILES, ids=lambda p: p.stem)
def test_variants_share_their_keys(file: Path):
  keys = [set(leaves(load(file, variant))) for variant in VARIANTS]
  assert all(k == keys[0] for k in keys)
  assert set(KEYS) <= keys[0]


@pytest.mark.parametrize("file", FILES, ids=lambda p: p.stem)
def test_header_says_command_result_and_cost(file: Path):
  header = file.read_text().split('"""')[1]
  assert f"--config=configs/{file.name}:obf" in header
  assert "Expected" in header
  assert "Cost" in header


def test_variants_choose_what_their_names_say():
  def pieces(variant: str) -> tuple[str, str, str]:
    config = load(DIGITS, variant)
    return config.perturbation.name, config.ascent.name, config.combine.name

  obf, gap = "output_bias_forgetting", "surrogate_gap"
  assert {variant: pieces(variant) for variant in VARIANTS} == {
    "plain": ("none", "loss", "none"),
    "sam": ("sam", "loss", "none"),
    "obf": ("sam", obf, "none"),
    "random": ("random", "loss", "none"),
    "asam": ("asam", "loss", "none"),
    "asam_obf": ("asam", obf, "none"),
    "gsam": ("sam", "loss", gap),
    "gsam_obf": ("sam", obf, gap),
  }


def test_the_share_that_is_climbed_reaches_the_step(
  monkeypatch: pytest.MonkeyPatch,
):
  config = load(DIGITS, "sam")
  config.ascent.fraction = 0.25
  config.batch_size, config.micro_batch_size = 64, 8
  seen: dict[str, object] = {}
  make: Any = fs.make_train_step

  def watched(*arguments: object, **given: object) -> object:
    seen.update(given)
    return make(*arguments, **given)

  monkeypatch.setattr("forgetsam.make_train_step", watched)
  sources = builders.build_sources(config, made_up(train=64))
  builders.build_experiment(config, sources)
  assert seen["ascent_fraction"] == 0.25


def test_a_perturbation_can_be_chosen_on_plain():
  config = apply_overrides(
    load(DIGITS, "plain"),
    [
      "--config.perturbation.name=sam",
      "--config.ascent.name=output_bias_forgetting",
      "--config.ascent.lam=0.2",
    ],
  )
  check_config(config, num_devices=1)
  assert config.ascent.lam == 0.2


# Every choice of each name, with `sam`, so that their options are read.
_CHOICES = [
  ["--config.look_sam.k=2"],
  *(
    [f"--config.{key}={name}"]
    for key in ("perturbation.name", "combine.name")
    for name in KEYS[key].rule.choices
    if name not in NEEDED  # they read no key of the table
  ),
]


def test_no_key_goes_unread(
  arguments: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
):
  images = made_up(train=64)
  held = data.in_memory(images, mean=0.0, std=1.0)
  monkeypatch.setattr(data, "load", lambda *_, **__: images)
  monkeypatch.setattr(data, "stream", lambda *_, **__: held)
  seen: set[str] = set()
  for variant in VARIANTS:
    for extra in (
      ["--config.optimizer.name=sgdw", "--config.schedule.name=linear"],
      [
        "--config.optimizer.shrink_and_perturb=0.1",
        "--config.perturbation.rho_schedule=lr_proportional",
      ],
      ["--config.data.stream=true"],
      *(_CHOICES if variant == "sam" else []),
    ):
      file, *rest = arguments(variant, *extra)
      overrides = [a for a in rest if a.startswith("--config.")]
      config = load_config_file(file.removeprefix("--config="))
      config = apply_overrides(config, overrides)
      builders.build_experiment(Recorder(config, seen, ""))
      builders.build_sources(Recorder(config, seen, ""), job=True)
  of_jobs = ("evaluation.sets", "sharpness.", "forgetting.", "probe.every")
  # `modules` is read where a name is in one, `log.wandb` by the job.
  of_jobs += ("modules", "log.wandb")
  unread = set(leaves(config)) - seen
  assert not [key for key in unread if not key.startswith(of_jobs)]


def test_json_keeps_a_configuration():
  config = load(DIGITS, "gsam_obf")
  config.model.hidden = (3, 4)
  again = config_from_dict(config_to_dict(config))
  assert leaves(again) == leaves(config)
  assert again.get_type("micro_batch_size") is int
  apply_overrides(again, ["--config.ascent.lam=0.5"])
  assert again.ascent.lam == 0.5


def test_hash_covers_what_decides_the_result():
  base = config_to_dict(load(DIGITS, "obf"))
  for key, value, free in [
    ("seed", 7, False),
    ("epochs", 7, False),
    ("perturbation.rho", 0.7, False),
    ("data.validation", 0.7, False),
    ("evaluation.every_epochs", 7, False),
    ("log.every_steps", 7, True),
    ("checkpoint.keep", 7, True),
    ("data.dir", "elsewhere", True),
  ]:
    config = load(DIGITS, "obf")
    config.update_from_flattened_dict({key: value})
    values = config_to_dict(config)
    assert (config_hash(values) == config_hash(base)) is free, key
    assert list(differing_keys(base, values)) == ([] if free else [key])


def test_variants_of_the_noisy_images_change_what_they_name():
  file = ROOT / "configs/noisy_cifar10.py"
  assert load(file, "obf").ascent.gamma == 1
  for variant in ("obf_gamma0", "gsam_obf", "asam_obf"):
    assert load(file, variant).ascent.gamma == 0
  assert load(file, "friendly_sam").perturbation.name == "friendly_sam"
  assert load(file, "momentum").perturbation.name == "momentum"
  assert load(file, "label_smoothing").loss.label_smoothing == 0.1
  augmented = load(file, "augmented").data
  assert (augmented.flip, augmented.crop_padding) == (True, 4)
  assert load(file, "asam").perturbation.rho == 2
