"""ResNet-18 on CIFAR-10 at 32 pixels: the paper's methods on one accelerator.

    python main.py --config=configs/cifar10_resnet18.py:sam_obf --workdir=DIR

The recipe is ours, not the paper's: common settings of ResNet-18 on CIFAR-10,
radii of the SAM and ASAM papers, nothing tuned.

Variants: plain, label_smoothing, shrink_and_perturb, sam, sam_obf, sam_random,
gsam, gsam_obf, asam, asam_obf. Each also with `,smoke`: two steps of a tiny
model of the same structure.

Expected: 0.95 to 0.97 test accuracy, by what is commonly published for such
recipes. We have not run this beyond smoke runs.
Hardware: one accelerator of 16 GB. Cost, counted and not measured:
35,200 steps, 1.5e16 operations (twice with a perturbation), about ten minutes
on one A100.
"""

from ml_collections import config_dict

from configs import paper
from forgetsam.experiment import base_config

_ASAM = {
  "perturbation.rho": 1.0,
  "perturbation.eta": 0.01,
  "perturbation.magnitude": "both",
}

VARIANTS: paper.Settings = {
  "plain": {"micro_batch_size": None},
  "label_smoothing": {"micro_batch_size": None},
  "shrink_and_perturb": {"micro_batch_size": None},
  "sam": {},
  "sam_obf": {},
  "sam_random": {},
  "gsam": {"combine.alpha": 0.2},
  "gsam_obf": {"combine.alpha": 0.2, "combine.normalized": True},
  "asam": _ASAM,
  "asam_obf": _ASAM,
}


def get_config(variant: str = "sam_obf") -> config_dict.ConfigDict:
  config = base_config()
  config.data.name = "cifar10"
  config.data.mean = (0.4914, 0.4822, 0.4465)
  config.data.std = (0.2470, 0.2435, 0.2616)
  config.data.flip, config.data.crop_padding = True, 4
  config.model.name = "resnet18_cifar"
  config.epochs, config.batch_size = 100, 128
  config.schedule.warmup_epochs = 5.0
  config.optimizer.name, config.optimizer.momentum = "sgdw", 0.9
  config.optimizer.learning_rate, config.optimizer.weight_decay = 0.1, 5e-4
  config.perturbation.rho = 0.1
  config.ascent.activation = "softmax"
  return paper.choose(config, variant, VARIANTS)
