"""ViT-S/16 on ImageNet, 300 epochs in batches of 4096.

    python main.py --config=configs/imagenet_vit_s16.py:sam_obf --workdir=DIR
    python main.py --job=evaluate --workdir=DIR

Variants: plain, sam, sam_obf, gsam, gsam_obf. Each also with `,smoke`: two
steps of a tiny model of the same structure.

Expected: the paper reports OBF above standard perturbations; its figures are
not repeated here. We have not run this beyond smoke runs.
Hardware: 8 accelerators of 40 GB or more; fewer do the same with as many
micro-batches. Cost, counted and not measured: 94,000 steps, 2e19 operations
(plain half of that), 14 hours on 8 A100s at a third of their TF32 peak if the
input keeps up with 8,000 images a second.
"""

from ml_collections import config_dict

from configs import paper

VARIANTS: paper.Settings = {
  "plain": {},
  "sam": {},
  "sam_obf": {},
  "gsam": {"combine.alpha": 1.0, **paper.FALLING_RHO},
  "gsam_obf": {"combine.alpha": 0.4, "combine.normalized": True},
}


def get_config(variant: str = "sam_obf") -> config_dict.ConfigDict:
  config = paper.imagenet_vit()
  config.model.name = "vit_s16"
  return paper.choose(config, variant, VARIANTS)
