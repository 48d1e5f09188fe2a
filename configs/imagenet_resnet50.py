"""ResNet-50 on ImageNet, 90 epochs in batches of 4096.

    python main.py --config=configs/imagenet_resnet50.py:sam_obf --workdir=DIR
    python main.py --job=evaluate --workdir=DIR

Trains at 224 pixels; --job=evaluate scores 288 pixels of 329.

Variants: plain, label_smoothing, shrink_and_perturb, sam, sam_obf, sam_random,
gsam, gsam_obf, asam, asam_obf. Each also with `,smoke`: two steps of a tiny
model of the same structure.

Expected: the paper reports OBF above standard perturbations with SAM, GSAM and
ASAM; its figures are not repeated here. We have not run this beyond smoke runs.
Hardware: 8 accelerators of 40 GB or more; fewer do the same with as many
micro-batches. BatchNorm sees 64 images with a perturbation, 256 without, on 1
to 16 devices. Cost, counted and not measured: 28,000 steps, 6e18 operations
(plain half of that), four hours on 8 A100s at a third of their TF32 peak if the
input keeps up with 8,000 images a second.
"""

from ml_collections import config_dict

from configs import paper

_BEFORE = {
  "perturbation.rho": 0.8,
  "perturbation.rho_min": 0.4,
  "perturbation.magnitude": "before",
}

VARIANTS: paper.Settings = {
  "plain": {},
  "label_smoothing": {},
  "shrink_and_perturb": {},
  "sam": paper.FALLING_RHO,
  "sam_obf": {},
  "sam_random": {},
  "gsam": {
    "combine.alpha": 0.01,
    "combine.normalized": True,
    **paper.FALLING_RHO,
  },
  "gsam_obf": {"combine.alpha": 0.01},
  "asam": {**_BEFORE, **paper.FALLING_RHO},
  "asam_obf": _BEFORE,
}


def get_config(variant: str = "sam_obf") -> config_dict.ConfigDict:
  config = paper.imagenet_resnet()
  config.model.name = "resnet50"
  return paper.choose(config, variant, VARIANTS)
