"""2,500 images of CIFAR-10, a fifth of them mislabelled: a small CNN.

    python main.py --config=configs/noisy_cifar10.py:obf_gamma0 --workdir=DIR
    scripts/noisy_cifar10.sh tune_cnn DIR

The second command is the comparison of docs/noisy_cifar10/README.md, which
has the protocol and the grids: radii here are the middle of them, not tuned.
Plain training fits all training labels; there is no augmentation, for with it
nothing separates. The 2,500 held-out images keep their labels.

Expected, from a pilot of two seeds: 0.36 validation accuracy of plain, 0.43 to
0.45 of sam and obf at their best radii.
Cost: 40 s on one CPU core (plain) to 85 s, after 20 to 40 s for the first run.

Variants: plain, more_decay, label_smoothing, augmented, random, sam, obf
(gamma = 1), obf_gamma0, gsam, gsam_obf, asam, asam_obf, friendly_sam, momentum.
With a combine rule or elementwise scaling, OBF has gamma = 0, as in the paper.
"""

from ml_collections import config_dict

from forgetsam.experiment import apply_variant, base_config

_GAMMA0 = {"ascent.gamma": 0.0}
# What each changes of another variant.
_CHANGES = {
  "more_decay": ("plain", {"optimizer.weight_decay": 0.05}),
  "label_smoothing": ("plain", {"loss.label_smoothing": 0.1}),
  "augmented": ("plain", {"data.flip": True, "data.crop_padding": 4}),
  "obf_gamma0": ("obf", _GAMMA0),
  "gsam_obf": ("gsam_obf", _GAMMA0),
  "asam_obf": ("asam_obf", _GAMMA0),
  "friendly_sam": ("sam", {"perturbation.name": "friendly_sam"}),
  "momentum": ("sam", {"perturbation.name": "momentum"}),
}
# A tenth faster on one core, with the loop's results to rounding.
_FACTORED = ("sam", "obf", "obf_gamma0", "gsam", "gsam_obf", "friendly_sam")


def get_config(variant: str = "obf_gamma0") -> config_dict.ConfigDict:
  config = base_config()
  config.data.name = "cifar10"
  config.data.mean = (0.4914, 0.4822, 0.4465)
  config.data.std = (0.2470, 0.2435, 0.2616)
  config.data.train_examples, config.data.validation = 2500, 0.1
  config.data.label_noise = 0.2
  config.model.name, config.model.batch_norm = "cnn", True
  config.epochs, config.batch_size, config.micro_batch_size = 40, 128, 64
  config.schedule.warmup_epochs = 5.0
  config.optimizer.name = "sgdw"
  config.optimizer.learning_rate, config.optimizer.weight_decay = 0.1, 5e-3
  config.ascent.activation = "softmax"
  if variant in _FACTORED:
    config.m_sharpness = "factored"
  config.perturbation.rho, config.combine.alpha = 0.4, 0.2
  config.evaluation.every_epochs = 2
  base, changes = _CHANGES.get(variant, (variant, {}))
  apply_variant(config, base).update_from_flattened_dict(changes)
  if config.perturbation.name == "asam":
    config.perturbation.rho, config.perturbation.eta = 2.0, 0.01
  elif config.perturbation.name == "random":
    config.perturbation.rho = 4.0  # most of a random direction does not matter
  return config
