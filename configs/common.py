"""What the recipes share: every key with a default, and the variants.

Optional keys are typed placeholders (None until set), so that every key of
every variant can be overridden on the command line.
"""

from typing import Any

from ml_collections import config_dict

_SAM = {"perturbation.name": "sam"}
_ASAM = {"perturbation.name": "asam"}
_GSAM = {"perturbation.name": "sam", "combine.name": "surrogate_gap"}
_OBF = {"ascent.name": "output_bias_forgetting"}

VARIANTS: dict[str, dict[str, Any]] = {
  "plain": {},
  "sam": _SAM,
  "obf": _SAM | _OBF,
  "random": {"perturbation.name": "random"},
  "asam": _ASAM,
  "asam_obf": _ASAM | _OBF,
  "gsam": _GSAM,
  "gsam_obf": _GSAM | _OBF | {"combine.normalized": True},
}


def base() -> config_dict.ConfigDict:
  """Every key that builders read, with a neutral default."""
  return config_dict.ConfigDict(
    {
      "seed": 0,
      # A step that is not finite ends the run, or its batch is passed over.
      "on_nonfinite": "stop",
      # A run's folder or a PyTorch file to start from, for fine-tuning.
      "init_from": config_dict.placeholder(str),
      "epochs": 10,
      "batch_size": 128,
      "micro_batch_size": config_dict.placeholder(int),
      # None leaves an option to the model; others than its own are refused.
      "model": {
        "name": "mlp",
        "hidden": config_dict.placeholder(tuple),
        "activation": config_dict.placeholder(str),
        "widths": config_dict.placeholder(tuple),
        "batch_norm": config_dict.placeholder(bool),
        "stage_sizes": config_dict.placeholder(tuple),
        "patch_size": config_dict.placeholder(int),
        "width": config_dict.placeholder(int),
        "depth": config_dict.placeholder(int),
        "num_heads": config_dict.placeholder(int),
        "mlp_ratio": config_dict.placeholder(int),
        "dropout": config_dict.placeholder(float),
        "head_bias": config_dict.placeholder(float),
        "remat": config_dict.placeholder(bool),
        "dtype": config_dict.placeholder(str),
      },
      "data": {
        "name": "digits",
        "dir": config_dict.placeholder(str),
        # Read from files as needed, with random resized crops.
        "stream": False,
        "image_size": 224,
        "crop_area": (0.05, 1.0),
        "crop_aspect": (3 / 4, 4 / 3),
        "shuffle_buffer": 8192,
        "threads": config_dict.placeholder(int),
        # Read the set once at the start, and leave out what is corrupt.
        "skip_corrupt": False,
        "validation": 0.1,
        "split_seed": 0,
        "train_examples": config_dict.placeholder(int),
        "label_noise": 0.0,
        "mean": (0.5,),
        "std": (0.5,),
        "flip": False,
        "crop_padding": 0,
      },
      "loss": {"name": "softmax_cross_entropy", "label_smoothing": 0.0},
      "ascent": {
        "name": "loss",
        "lam": config_dict.placeholder(float),
        "gamma": 1.0,
        "activation": "sigmoid",
        "fraction": 1.0,  # of each micro-batch, that is climbed
      },
      "perturbation": {
        "name": "none",
        "rho": 0.05,
        "steps": 1,  # of ascent, which share the radius
        "every_k": 1,  # steps per ascent, which reuse its direction
        "layers": "all",
        "start": 0.0,  # fractions of training
        "stop": 1.0,
        "sigma": 1.0,  # of friendly_sam, as is decay
        "decay": 0.9,
        "rho_schedule": "constant",
        "rho_min": 0.0,
        "eta": 0.0,
        "magnitude": "both",
      },
      # Perturbs every k-th step, and reuses its gradient's flat part between.
      "look_sam": {"k": 1, "alpha": 0.7},
      "combine": {
        "name": "none",
        "alpha": 0.1,
        "normalized": False,
        "gamma": 0.9,
      },
      "optimizer": {
        "name": "adamw",
        "learning_rate": 1e-3,
        "weight_decay": 0.0,
        "momentum": 0.9,
        "clip": config_dict.placeholder(float),
        "shrink_and_perturb": config_dict.placeholder(float),
        # Each device holds a part of its state (ZeRO-1).
        "shard_state": False,
      },
      "schedule": {
        "name": "cosine",
        "warmup_epochs": 1.0,
        "min_learning_rate": 0.0,
      },
      "evaluation": {
        "every_epochs": 1,
        "batch_size": 512,
        # Of streamed sets: the shorter side is resized, the middle is cut out.
        "image_size": 224,
        "short_side": 256,
        "resize_method": "bicubic",
        # Shows the test split along training; it chooses nothing.
        "watch_test": False,
        # Of --job=evaluate: sets beside the run's own, and another crop.
        "sets": "",
        "job_image_size": config_dict.placeholder(int),
        "job_short_side": config_dict.placeholder(int),
      },
      # Of --job=sharpness: the training loss around the weights.
      "sharpness": {
        "checkpoint": "last",
        "examples": 8192,
        "top": 1,
        "lanczos_steps": 30,
        "trace_samples": 50,
        "density_samples": 5,
        "rho": 0.05,
        "micro_batch_size": 128,
        "layers": False,
        "surface_points": 0,
      },
      # Of --job=forgetting and of the probe: common perturbations.
      "forgetting": {
        "checkpoint": "last",
        "examples": 2000,
        "per_class": 30,
        "micro_batch_size": 64,
        "repeats": 20,
        "sam_rho": 0.1,
        "obf_rho": 0.4,
        "random_rho": 1.0,
        "layer": config_dict.placeholder(str),
        "noise_std": 0.5,
      },
      # What training forgets, along the way: sam, obf, random, or nothing.
      "probe": {"perturbations": "", "every_steps": 200},
      "checkpoint": {"every_steps": config_dict.placeholder(int), "keep": 1},
      "log": {"every_steps": 50, "profile": False},
    }
  )


def apply_variant(
  config: config_dict.ConfigDict, variant: str
) -> config_dict.ConfigDict:
  """Sets the keys of `variant`; an unknown one is a ValueError."""
  if variant not in VARIANTS:
    raise ValueError(
      f"variant {variant!r} is unknown; allowed: {', '.join(VARIANTS)}"
    )
  config.update_from_flattened_dict(VARIANTS[variant])
  return config
