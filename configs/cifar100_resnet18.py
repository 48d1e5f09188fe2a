"""ResNet-18 on CIFAR-100 at 32 pixels, with SAM's published radius.

    python main.py --config=configs/cifar100_resnet18.py:sam --workdir=DIR

The recipe and the variants of `configs/cifar100_wrn28_10.py` with a smaller
network. On CIFAR-10 it is `configs/cifar10_resnet18.py` with
--config.perturbation.rho=0.05.

Expected: 0.77 to 0.79 test accuracy of plain and 0.79 to 0.81 of sam, by what
is commonly published for such recipes. **Not run here** beyond smoke runs.
Hardware: one accelerator of 16 GB. Cost, counted and not measured:
35,200 steps, 3e16 operations (twice with a perturbation), about twenty minutes
on one A100.
"""

from ml_collections import config_dict

from configs import cifar100_wrn28_10, paper

VARIANTS = cifar100_wrn28_10.VARIANTS


def get_config(variant: str = "sam_obf") -> config_dict.ConfigDict:
  config = cifar100_wrn28_10.get_config(variant.partition(",")[0])
  config.model.name = "resnet18_cifar"
  return paper.choose(config, variant, VARIANTS)
