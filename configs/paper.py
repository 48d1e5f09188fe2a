"""Shared by the recipes of the paper: ImageNet, its variants, and smoke runs.

The numbers are those of Vani et al., *Forget Sharpness: Perturbed Forgetting of
Model Biases Within SAM Dynamics*, 2024, and of its official code. Each recipe's
file holds what is particular to it.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import config_dict

from forgetsam.experiment import apply_variant, base_config

Settings = Mapping[str, Mapping[str, Any]]

SETS = "imagenet2012,imagenet2012_real,imagenet_v2,imagenet_r,imagenet_sketch"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_SAM = {"perturbation.name": "sam", "micro_batch_size": 64}
_ASAM = {"perturbation.name": "asam", "micro_batch_size": 64}
_OBF = {"ascent.name": "output_bias_forgetting"}
_GAP = {"combine.name": "surrogate_gap"}

# Vanilla training takes a loader's batch of 256 as a whole: BatchNorm sees it.
METHODS: Settings = {
  "plain": {},
  "label_smoothing": {"loss.label_smoothing": 0.1},
  "shrink_and_perturb": {"optimizer.shrink_and_perturb": 1e-5},
  "sam": _SAM,
  "sam_obf": _SAM | _OBF,
  "sam_random": {"perturbation.name": "random", "micro_batch_size": 64},
  "gsam": _SAM | _GAP,
  "gsam_obf": _SAM | _OBF | _GAP,
  "asam": _ASAM,
  "asam_obf": _ASAM | _OBF,
}

# rho falls with the learning rate, from rho to rho_min.
FALLING_RHO = {"perturbation.rho_schedule": "lr_proportional"}


def streamed() -> config_dict.ConfigDict:
  """Images at 224 pixels, read from files, with the paper's crops."""
  config = base_config()
  config.seed = 42
  config.micro_batch_size = 256
  config.data.stream, config.data.flip = True, True
  config.data.image_size = 224
  config.data.crop_area, config.data.crop_aspect = (0.05, 1.0), (3 / 4, 4 / 3)
  config.data.validation = 0.0
  config.evaluation.image_size, config.evaluation.short_side = 224, 256
  config.evaluation.resize_method = "bicubic"
  config.evaluation.watch_test = True
  config.schedule.name = "linear"
  config.checkpoint.every_steps, config.checkpoint.keep = 500, 2
  return config


def imagenet() -> config_dict.ConfigDict:
  """ImageNet in batches of 4096: 313 steps an epoch."""
  config = streamed()
  config.data.name = "imagenet2012"
  config.batch_size = 4096
  config.evaluation.batch_size = 512
  config.evaluation.sets = SETS
  return config


def imagenet_vit() -> config_dict.ConfigDict:
  """How the paper trains ViTs."""
  config = imagenet()
  config.data.mean, config.data.std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
  config.model.head_bias = -10.0
  config.epochs, config.schedule.warmup_epochs = 300, 32.0
  config.loss.name = "sigmoid_cross_entropy"
  config.optimizer.name, config.optimizer.weight_decay = "adamw", 0.3
  config.optimizer.learning_rate = 3e-3
  config.schedule.min_learning_rate = 3e-5
  config.optimizer.clip = 1.0
  config.perturbation.rho, config.perturbation.rho_min = 0.6, 0.0
  config.ascent.gamma = 1.0
  return config


def imagenet_resnet() -> config_dict.ConfigDict:
  """How the paper trains ResNets."""
  config = imagenet()
  config.data.mean, config.data.std = IMAGENET_MEAN, IMAGENET_STD
  config.epochs, config.schedule.warmup_epochs = 90, 16.0
  config.loss.name = "softmax_cross_entropy"
  config.optimizer.name, config.optimizer.momentum = "sgdw", 0.9
  config.optimizer.weight_decay = 1e-3
  config.optimizer.learning_rate = 1.6
  config.schedule.min_learning_rate = 0.016
  config.perturbation.rho, config.perturbation.rho_min = 0.04, 0.02
  config.ascent.gamma = 1e-12  # that is, 0: u - y
  config.evaluation.job_image_size, config.evaluation.job_short_side = 288, 329
  return config


def choose(
  config: config_dict.ConfigDict, argument: str, settings: Settings
) -> config_dict.ConfigDict:
  """Applies `VARIANT` or `VARIANT,smoke`.

  Args:
    config: what the file's variants share.
    argument: what follows the colon of --config.
    settings: the file's variants and what is particular to each, beside what
      `METHODS` says of its name.
  """
  variant, *options = argument.split(",")
  variants = {
    name: {**METHODS.get(name, {}), **changes}
    for name, changes in settings.items()
  }
  apply_variant(config, variant, variants)
  if options not in ([], ["smoke"]):
    raise ValueError(
      f"option {','.join(options)!r} is unknown; allowed: smoke, as in "
      f"{variant},smoke"
    )
  return smoke(config) if options else config


def smoke(config: config_dict.ConfigDict) -> config_dict.ConfigDict:
  """Shrinks everything but the structure: two steps of a tiny model."""
  config.epochs, config.schedule.warmup_epochs = 1, 0.5
  config.batch_size, config.evaluation.batch_size = 8, 8
  config.micro_batch_size = 4
  config.data.train_examples = 16
  if config.data.stream:
    config.data.image_size = 64
    config.data.shuffle_buffer, config.data.threads = 16, 1
    config.evaluation.image_size, config.evaluation.short_side = 64, 72
    if config.evaluation.job_image_size is not None:
      config.evaluation.job_image_size = 72
      config.evaluation.job_short_side = 80
  if config.model.name.startswith("vit"):
    config.model.width, config.model.depth, config.model.num_heads = 16, 1, 2
  else:
    config.model.width = 4
    blocks = len(config.model.stage_sizes or range(4))
    config.model.stage_sizes = (1,) * blocks
  return config


def finetune() -> config_dict.ConfigDict:
  """CIFAR at ImageNet's size and crops, 100 epochs from trained weights."""
  config = streamed()
  config.batch_size, config.evaluation.batch_size = 512, 512
  config.epochs, config.schedule.warmup_epochs = 100, 5.0
  config.optimizer.name, config.optimizer.momentum = "sgdw", 0.9
  config.optimizer.weight_decay = 0.0
  config.schedule.min_learning_rate = 0.0
  config.optimizer.clip = 1.0
  config.perturbation.rho_schedule = "constant"
  config.ascent.gamma = 0.0
  return config


CLASSES = {"cifar10": 10, "cifar100": 100}


def split_set(argument: str) -> tuple[str, str]:
  """The CIFAR set and the rest of `SET_VARIANT`, such as `cifar10_sam_obf`."""
  name, _, variant = argument.partition("_")
  if name not in CLASSES or not variant:
    raise ValueError(
      f"variant {argument!r} is unknown; allowed: cifar10_ or cifar100_, then "
      "plain, sam or sam_obf"
    )
  return name, variant
