"""Does forgetting predict generalisation, on a transformer? The study's grid.

    python main.py --job=study --config=configs/study_vit.py --workdir=DIR

The small ViT of `configs/noisy_cifar10_vit.py` on 2,500 images of CIFAR-10,
with a fifth of the labels wrong and with clean ones, measured as in docs/study.
docs/noisy_cifar10/README.md has the hypotheses. It was not run in full here.

Cost: nine minutes for the first network on half of a CPU core, compilation
included.

Variants: those of `configs/noisy_cifar10_vit.py`.
"""

from typing import Any

from ml_collections import config_dict

from configs import noisy_cifar10_vit

_REST = "optimizer.learning_rate=5e-4,2e-3;optimizer.weight_decay=0.1,5"

STUDY: dict[str, dict[str, Any]] = {
  "arms": {
    "noisy": {"seeds": 1, "changes": {"data.label_noise": "0.2"}},
    "clean": {"seeds": 1, "changes": {"data.label_noise": "0"}},
  },
  "grids": {
    "plain": (
      "optimizer.learning_rate=5e-4,1e-3,2e-3,4e-3;"
      "optimizer.weight_decay=0.1,1,5"
    ),
    "sam": "perturbation.rho=0.05,0.1,0.2,0.4;" + _REST,
    "obf": "ascent.gamma=0,1;perturbation.rho=0.05,0.1,0.4;" + _REST,
    "random": "perturbation.rho=2,8;" + _REST,
  },
}


def get_config(variant: str = "obf") -> config_dict.ConfigDict:
  return noisy_cifar10_vit.get_config(variant)
