"""ViT-S/32 on ImageNet, 300 epochs in batches of 4096.

    python main.py --config=configs/imagenet_vit_s32.py:sam_obf --workdir=DIR
    python main.py --job=evaluate --workdir=DIR

Variants: plain, label_smoothing, shrink_and_perturb, sam, sam_obf, sam_random,
gsam, gsam_obf, asam, asam_obf. Each also with `,smoke`: two steps of a tiny
model of the same structure.

Expected: the paper reports OBF above standard perturbations with SAM, GSAM and
ASAM; its figures are not repeated here. We have not run this beyond smoke runs.
Hardware: 8 accelerators of 40 GB or more; fewer do the same with as many
micro-batches. Cost, counted and not measured: 94,000 steps, 5e18 operations
(plain half of that), four hours on 8 A100s at a third of their TF32 peak if the
input keeps up with 30,000 images a second.
"""

from ml_collections import config_dict

from configs import paper

_AFTER = {"perturbation.rho": 6.0, "perturbation.magnitude": "after"}

VARIANTS: paper.Settings = {
  "plain": {},
  "label_smoothing": {},
  "shrink_and_perturb": {},
  "sam": paper.FALLING_RHO,
  "sam_obf": {},
  "sam_random": {},
  "gsam": {"combine.alpha": 0.4, **paper.FALLING_RHO},
  "gsam_obf": {"combine.alpha": 0.4, "combine.normalized": True},
  "asam": _AFTER,
  "asam_obf": {**_AFTER, "ascent.gamma": 1e-12},  # that is, 0
}


def get_config(variant: str = "sam_obf") -> config_dict.ConfigDict:
  config = paper.imagenet_vit()
  config.model.name = "vit_s32"
  return paper.choose(config, variant, VARIANTS)
