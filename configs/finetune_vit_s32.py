"""ViT-S/32, trained on ImageNet, on CIFAR-10 or CIFAR-100 at 224 pixels.

    python main.py --config=configs/finetune_vit_s32.py:cifar10_plain \
        --config.init_from=IMAGENET_RUN --workdir=DIR

`init_from` is the folder of a run of ours or a PyTorch file; without it the
model starts from scratch. The paper fine-tunes runs of `sam` and `sam_obf` with
plain SGD, and the vanilla run with `sam` and `sam_obf`.

Variants: cifar10_ or cifar100_, then plain, sam or sam_obf. Each also with
`,smoke`: two steps of a tiny model of the same structure.

Expected: the paper reports that OBF transfers better; its figures are not
repeated here. We have not run this beyond smoke runs.
Hardware: one accelerator of 16 GB. Cost, counted and not measured:
9,800 steps, 3.5e16 operations (twice with a perturbation), a quarter of an hour
on one A100 at a third of its TF32 peak if the input keeps up.
"""

import math

from ml_collections import config_dict

from configs import paper

VARIANTS: paper.Settings = {"plain": {}, "sam": {}, "sam_obf": {}}


def get_config(variant: str = "cifar10_plain") -> config_dict.ConfigDict:
  config = paper.finetune()
  config.data.name, variant = paper.split_set(variant)
  config.data.mean, config.data.std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
  config.model.name = "vit_s32"
  config.model.head_bias = -math.log(paper.CLASSES[config.data.name])
  config.loss.name = "sigmoid_cross_entropy"
  config.optimizer.learning_rate = 0.003
  config.perturbation.rho = 0.05
  return paper.choose(config, variant, VARIANTS)
