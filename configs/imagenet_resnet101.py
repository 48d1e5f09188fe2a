"""ResNet-101 on ImageNet, 90 epochs in batches of 4096.

    python main.py --config=configs/imagenet_resnet101.py:sam_obf --workdir=DIR
    python main.py --job=evaluate --workdir=DIR

Trains at 224 pixels; --job=evaluate scores 288 pixels of 329.

Variants: plain, sam, sam_obf, gsam, gsam_obf. Each also with `,smoke`: two
steps of a tiny model of the same structure.

Expected: the paper reports OBF above standard perturbations; its figures are
not repeated here. We have not run this beyond smoke runs.
Hardware: 8 accelerators of 40 GB or more; fewer do the same with as many
micro-batches. BatchNorm sees 64 images with a perturbation, 256 without, on 1
to 16 devices. Cost, counted and not measured: 28,000 steps, 1.1e19 operations
(plain half of that), seven hours on 8 A100s at a third of their TF32 peak if
the input keeps up with 5,000 images a second.
"""

from ml_collections import config_dict

from configs import paper

VARIANTS: paper.Settings = {
  "plain": {},
  "sam": paper.FALLING_RHO,
  "sam_obf": {},
  "gsam": {
    "combine.alpha": 0.01,
    "combine.normalized": True,
    **paper.FALLING_RHO,
  },
  "gsam_obf": {"combine.alpha": 0.01},
}


def get_config(variant: str = "sam_obf") -> config_dict.ConfigDict:
  config = paper.imagenet_resnet()
  config.model.name = "resnet101"
  return paper.choose(config, variant, VARIANTS)
