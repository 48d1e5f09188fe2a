"""WRN-28-10 on CIFAR-100 at 32 pixels: what papers on SAM report first.

    python main.py --config=configs/cifar100_wrn28_10.py:sam --workdir=DIR

The recipe and the variants of `configs/cifar10_wrn28_10.py`, with SAM's
published radius for CIFAR-100, 0.1.

Expected, by the SAM paper's table 1 (basic augmentation, 200 epochs; test error
of five runs): SGD 18.8 +- 0.2 %, SAM 16.5 +- 0.2 %. **Not run here** beyond
smoke runs.
Hardware and cost: as on CIFAR-10.
"""

from ml_collections import config_dict

from configs import cifar10_wrn28_10, paper

VARIANTS = cifar10_wrn28_10.VARIANTS


def get_config(variant: str = "sam_obf") -> config_dict.ConfigDict:
  config = cifar10_wrn28_10.recipe(variant, rho=0.1)
  config.data.name = "cifar100"
  config.data.mean = (0.5071, 0.4865, 0.4409)
  config.data.std = (0.2673, 0.2564, 0.2762)
  return paper.choose(config, variant, VARIANTS)
