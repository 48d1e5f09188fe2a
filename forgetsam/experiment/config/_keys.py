"""The table of configuration keys: each is declared here, and only here.

Groups are in the order of `config.json`. A row is a default, a rule and a line
of help; `Key` says what else there is.
"""

from collections.abc import Mapping
from typing import Any

from flax.traverse_util import flatten_dict

from forgetsam.experiment.config._measuring_keys import MEASURING
from forgetsam.experiment.config._modules import is_module_attribute
from forgetsam.experiment.config._perturbing import (
  COMBINE_RULES,
  METHODS,
  PERTURBATIONS,
)
from forgetsam.experiment.config._rules import (
  BELOW_ONE,
  COUNT,
  FINITE,
  FLAG,
  INSIDE_ONE,
  NOT_NEGATIVE,
  POSITIVE,
  SEED,
  SHARE,
  UP_TO_ONE,
  Key,
  Rule,
  choice,
  component,
  integer,
  interval,
  path,
  patterns,
  per_channel,
  text,
  words,
)


def _number(
  default: float | None, rule: Rule, about: str, turn: int = 0
) -> Key:
  return Key(default, rule, about, traced=True, tie_break=turn)


def _switch(default: Any, rule: Rule, about: str) -> Key:
  return Key(default, rule, about, switch=True)


def _free(default: Any, rule: Rule, about: str) -> Key:
  return Key(default, rule, about, binding=False)


def _option(kind: type, about: str) -> Key:
  """One that the constructor of the chosen model checks."""
  return Key(None, Rule(kind, f"a value of type {kind.__name__}"), about)


def _group(rows: dict[str, Key], **changes: Any) -> dict[str, Key]:
  return {name: row._replace(**changes) for name, row in rows.items()}


def _data(**rows: Key) -> dict[str, Key]:
  return _group(rows, compiled=False, tuned=False)


def _free_data(**rows: Key) -> dict[str, Key]:
  return _group(_data(**rows), binding=False)


def _perturbing(**rows: Key) -> dict[str, Key]:
  return _group(rows, perturbs=True)


_FOLDERS = Rule(
  tuple,
  "a tuple of folders",
  lambda v: bool(v) and all(isinstance(f, str) and f for f in v),
)
_OPTIMIZER = Rule(
  str,
  "adamw, sgdw, slow_sgdw (of method lookbehind), another optimizer of optax, "
  "or module:attribute",
  lambda v: v.isidentifier() or is_module_attribute(v),
  ("adamw", "sgdw"),
)


_TABLE: dict[str, Any] = {
  "seed": _number(
    0, SEED, "Seed of initialisation, data order, dropout and noise"
  )._replace(tuned=False),
  "on_nonfinite": _free(
    "stop",
    choice("stop", "skip"),
    "Reaction to a non-finite loss or gradient",
  ),
  "init_from": Key(
    None,
    path("the folder of a run, or a PyTorch model's file or folder,"),
    "Run, or PyTorch file or folder, whose weights training starts from",
  ),
  "epochs": Key(10, COUNT, "Passes over the training split"),
  "batch_size": Key(128, COUNT, "Examples per step, over all devices"),
  "micro_batch_size": Key(
    None,
    COUNT,
    "Examples that share a delta (m); none: a device's whole share",
    tie_break=-4,
  ),
  "m_sharpness": Key(
    "loop",
    choice("auto", "factored", "loop"),
    "How micro-batches are taken: together, in factors, or one after another",
    tuned=False,
    binding=False,
    absent="loop",
  ),
  "m_sharpness_chunk": Key(
    None,
    COUNT,
    "Examples that m_sharpness=factored takes together; none: by memory",
    tuned=False,
    binding=False,
    absent=None,
  ),
  "mesh": _group(
    {
      "fsdp": _free(
        1, COUNT, "Devices that share parameters and micro-batches"
      ),
      "model": _free(1, COUNT, "Devices that share each layer's channels"),
    },
    tuned=False,
    absent=1,
  ),
  "modules": _free(
    None, _FOLDERS, "Where module:attribute names are looked for first"
  )._replace(tuned=False, absent=None),
  "model": {
    "name": Key(
      "mlp",
      text("the name of a registered model, or module:attribute"),
      "Architecture",
    ),
    "hidden": _option(tuple, "Widths of the mlp's hidden layers"),
    "activation": _option(str, "Activation of the mlp: gelu, relu or tanh"),
    "widths": _option(tuple, "Channels of the cnn's convolutions"),
    "batch_norm": _option(bool, "Whether the cnn has BatchNorm"),
    "stage_sizes": _option(tuple, "Blocks in each stage of a ResNet"),
    "patch_size": _option(int, "Side of a ViT's patches, in pixels"),
    "width": _option(int, "Channels of a ResNet's first stage, or of a ViT"),
    "depth": _option(int, "Blocks of a ViT"),
    "num_heads": _option(int, "Attention heads of a ViT"),
    "mlp_ratio": _option(int, "Hidden width over width in a ViT's blocks"),
    "dropout": _option(float, "Dropout rate"),
    "head_bias": _option(float, "Initial bias of the logits"),
    "remat": _option(bool, "Recompute activations in the backward pass"),
    "dtype": _option(str, "Type of the computation; parameters are float32"),
  },
  "data": _data(
    name=Key("digits", text("the name of a data set"), "Data set"),
    dir=_free(
      None, path("a folder", "gs"), "Folder of prepared sets; none: TFDS's"
    ),
    stream=Key(False, FLAG, "Read files as needed, with random resized crops"),
    memory_limit=Key(
      2.0, POSITIVE, "GiB beyond which sets of one's own stream", absent=2.0
    ),
    image_size=Key(224, COUNT, "Side of streamed crops, in pixels"),
    crop_area=Key(
      (0.05, 1.0), interval(1.0), "Range of a crop's relative area"
    ),
    crop_aspect=Key((3 / 4, 4 / 3), interval(), "Range of a crop's aspect"),
    shuffle_buffer=Key(8192, COUNT, "Streamed examples to shuffle among"),
    threads=_free(None, COUNT, "Decoding threads; none: one per CPU core"),
    skip_corrupt=Key(False, FLAG, "Find and leave out corrupt streamed images"),
    fast_decode=Key(
      False,
      FLAG,
      "Decode streamed JPEGs at their own smaller scales where crops allow",
      absent=False,
    ),
    validation=Key(0.1, BELOW_ONE, "Fraction of the training split held out"),
    test=Key(
      0.2,
      BELOW_ONE,
      "Fraction to test on, of sets without a test split",
      absent=0.2,
    ),
    split_seed=Key(0, SEED, "Seed that chooses the held-out examples"),
    train_examples=Key(None, COUNT, "Training examples to keep; none: all"),
    label_noise=Key(0.0, UP_TO_ONE, "Fraction of training labels to change"),
    mean=Key((0.5,), per_channel(FINITE), "Subtracted from pixels in [0, 1]"),
    std=Key((0.5,), per_channel(POSITIVE), "Divisor of pixels less the mean"),
    flip=Key(False, FLAG, "Mirror training images at random"),
    crop_padding=Key(0, integer(0), "Pixels to shift training images by"),
  ),
  "augmentation": {
    "name": Key(
      "none", component("none"), "Change to training images", absent="none"
    ),
  },
  "loss": {
    "name": Key(
      "softmax_cross_entropy",
      component("softmax_cross_entropy", "sigmoid_cross_entropy"),
      "Training loss",
    ),
    "label_smoothing": _number(0.0, BELOW_ONE, "Weight of uniform labels"),
  },
  "ascent": _perturbing(
    name=_switch(
      "loss", component("loss", "output_bias_forgetting"), "Ascent objective"
    ),
    lam=_number(None, BELOW_ONE, "OBF's lambda; none: 1 / classes"),
    gamma=_number(1.0, UP_TO_ONE, "OBF's gamma"),
    activation=Key(
      "sigmoid", choice("sigmoid", "softmax"), "From logits to OBF's outputs"
    ),
    fraction=_switch(
      1.0, SHARE, "Fraction of each micro-batch in its ascent gradient"
    ),
  ),
  "perturbation": _perturbing(
    name=Key(
      "none",
      component(*PERTURBATIONS),
      "From ascent gradient to delta, the offset of the weights",
    ),
    rho=_number(0.05, NOT_NEGATIVE, "Radius of delta", turn=1),
    steps=_switch(1, COUNT, "Ascent steps, which share the radius"),
    every_k=_switch(1, COUNT, "Steps per ascent; others reuse its direction"),
    layers=_switch("all", choice("all", "norm"), "Layers to perturb"),
    start=_switch(0.0, BELOW_ONE, "Fraction of training before it begins"),
    stop=_switch(1.0, SHARE, "Fraction of training after which it ends"),
    sigma=_number(
      1.0, FINITE, "Multiple of the mean gradient that friendly_sam subtracts"
    ),
    decay=_number(0.9, BELOW_ONE, "Decay of friendly_sam's mean gradient"),
    rho_schedule=Key(
      "constant",
      component("constant", "lr_proportional"),
      "Radius over training",
    ),
    rho_min=_number(0.0, NOT_NEGATIVE, "Radius at the smallest learning rate"),
    eta=_number(0.0, NOT_NEGATIVE, "Added to |w| in asam"),
    magnitude=Key(
      "both",
      choice("before", "after", "both"),
      "Where asam multiplies by |w|: before or after the norm",
    ),
    noise=Key(
      "drawn",
      choice("drawn", "table"),
      "Whether random draws numbers anew or takes them from a table",
      absent="drawn",
    ),
  ),
  "method": _perturbing(
    name=_switch(
      "perturbed_gradient",
      component(*METHODS),
      "From perturbation and combine rule to the descent gradient",
    )._replace(absent="perturbed_gradient"),
  ),
  "look_sam": _perturbing(
    k=_switch(1, COUNT, "Steps per perturbed step of LookSAM; 1: off"),
    alpha=_number(0.7, FINITE, "Weight of LookSAM's reused component"),
  ),
  "combine": _perturbing(
    name=_switch(
      "none",
      component(*COMBINE_RULES),
      "Descent gradient from ascent and perturbed gradient",
    ),
    alpha=_number(0.1, FINITE, "Weight of surrogate_gap (GSAM)"),
    normalized=Key(False, FLAG, "Whether surrogate_gap projects delta"),
    gamma=_number(0.9, BELOW_ONE, "Weight of sharpness in weighted (WSAM)"),
    decoupled=Key(
      False,
      FLAG,
      "Whether weighted's sharpness stays out of the optimizer's momentum",
      absent=False,
    ),
  ),
  "optimizer": {
    "name": Key("adamw", _OPTIMIZER, "Optimizer"),
    "learning_rate": _number(1e-3, POSITIVE, "Peak learning rate", turn=3),
    "weight_decay": _number(0.0, NOT_NEGATIVE, "Decoupled decay", turn=2),
    "momentum": _number(0.9, BELOW_ONE, "Momentum, where it takes one"),
    "clip": _number(None, POSITIVE, "Largest gradient norm; none: any"),
    "clip_adaptive": _number(
      None,
      POSITIVE,
      "Largest gradient norm over weight norm, unit by unit; none: any",
    )._replace(absent=None),
    "shrink_and_perturb": _number(
      None,
      UP_TO_ONE,
      "Fraction of the way back to the initial weights per step",
    ),
    "ema": _number(
      None,
      INSIDE_ONE,
      "Decay of the weights' moving average, evaluated beside them; none: off",
    )._replace(absent=None),
    "train_only": Key(
      None,
      patterns("regular expressions of the parameters' paths"),
      "Paths of the parameters that train; none: all",
      absent=None,
    ),
    "shard_state": Key(False, FLAG, "Shard the state over devices (ZeRO-1)"),
  },
  "schedule": {
    "name": Key(
      "cosine",
      component("cosine", "linear", "constant", "wsd"),
      "Learning rate over training",
    ),
    "warmup_epochs": Key(1.0, NOT_NEGATIVE, "Epochs of linear warm-up from 0"),
    "min_learning_rate": _number(0.0, NOT_NEGATIVE, "Learning rate at the end"),
  },
  "metric": {
    "name": Key(
      "classification",
      component("classification", "language_model", "regression"),
      "Scores beside the loss",
      absent="classification",
    ),
  },
  "evaluation": _data(
    every_epochs=Key(1, COUNT, "Epochs between evaluations"),
    batch_size=_free(512, COUNT, "Examples per batch"),
    image_size=Key(224, COUNT, "Side of streamed images' central crop"),
    short_side=Key(256, COUNT, "Streamed images' shorter side before it"),
    resize_method=Key("bicubic", choice("bilinear", "bicubic"), "Resizing"),
    watch_test=_free(False, FLAG, "Log test scores, too; they choose nothing"),
    sets=_free("", words("names of sets"), "More sets for --job=evaluate"),
    job_image_size=_free(None, COUNT, "Like image_size, for --job=evaluate"),
    job_short_side=_free(None, COUNT, "Like short_side, for --job=evaluate"),
  ),
  **MEASURING,
  "checkpoint": _free_data(
    every_steps=Key(None, COUNT, "Steps between saves beside evaluations'"),
    keep=Key(1, COUNT, "Latest checkpoints to keep"),
  ),
  "log": _free_data(
    every_steps=Key(50, COUNT, "Steps between log lines"),
    profile=Key(False, FLAG, "Write a profile of a few steps"),
    wandb=Key(
      None,
      text("a project of Weights & Biases"),
      "Project of Weights & Biases that metrics also go to",
      absent=None,
    ),
  ),
}

KEYS: Mapping[str, Key] = flatten_dict(_TABLE, sep=".")
