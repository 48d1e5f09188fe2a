"""ResNet-50, trained on ImageNet, on CIFAR-10 or CIFAR-100 at 224 pixels.

    python main.py --config=configs/finetune_resnet50.py:cifar10_plain \
        --config.init_from=IMAGENET_RUN --workdir=DIR

`init_from` is the folder of a run of ours or a PyTorch file; without it the
model starts from scratch. The paper fine-tunes runs of `sam` and `sam_obf` with
plain SGD, and the vanilla run with `sam` and `sam_obf`.

Variants: cifar10_ or cifar100_, then plain, sam or sam_obf. Each also with
`,smoke`: two steps of a tiny model of the same structure.

Expected: the paper reports that OBF transfers better; its figures are not
repeated here. We have not run this beyond smoke runs.
Hardware: one accelerator of 40 GB. Cost, counted and not measured:
9,800 steps, 1.2e17 operations (twice with a perturbation), 40 minutes on one
A100 at a third of its TF32 peak if the input keeps up.
"""

from ml_collections import config_dict

from configs import paper

_BCE = {"loss.name": "sigmoid_cross_entropy"}

VARIANTS: paper.Settings = {"plain": {}, "sam": _BCE, "sam_obf": _BCE}


def get_config(variant: str = "cifar10_plain") -> config_dict.ConfigDict:
  config = paper.finetune()
  config.data.name, variant = paper.split_set(variant)
  config.data.mean = paper.IMAGENET_MEAN
  config.data.std = paper.IMAGENET_STD
  config.model.name = "resnet50"
  config.loss.name = "softmax_cross_entropy"
  config.optimizer.learning_rate = 0.01
  config.perturbation.rho = 0.1
  return paper.choose(config, variant, VARIANTS)
