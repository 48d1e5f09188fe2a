"""Cheap perturbations on 2,000 images of Fashion-MNIST with wrong labels.

    python main.py --config=configs/cheap_fashion_2k.py:obf_quarter \
        --workdir=/tmp/cheap
    PYTHONPATH=. python benchmarks/pareto.py --workdir=runs/pareto

The setting is that of `configs/fashion_mnist_2k.py` with a fifth of the
training labels flipped. The second command tunes the variants, trains them over
seeds and measures what a step of each costs.

Expected: see benchmarks/README.md.

Cost: one to five seconds a run on one CPU core.

Variants: plain (and plain_38, plain_60: for as many epochs, in which it takes
as long as others do in 30), sam, obf, friendly, weighted and momentum; of the
first three what makes a step cheap: _quarter and _eighth (of each micro-batch,
the part that is climbed); of sam and obf also _every_5 (steps ascends one),
_every_5_quarter, _look_5 (LookSAM), _late (from half of training on, on a
quarter), _early (until then). The other published methods are by their names.
"""

from typing import Any

from ml_collections import config_dict

from configs import fashion_mnist_2k
from forgetsam.experiment import VARIANTS as METHODS
from forgetsam.experiment import apply_variant

_QUARTER, _EIGHTH = {"ascent.fraction": 0.25}, {"ascent.fraction": 0.125}
_FRIENDLY = {"perturbation.name": "friendly_sam"}

# Of SAM and of output bias forgetting alike.
_CHEAPER: dict[str, dict[str, Any]] = {
  "quarter": _QUARTER,
  "every_5": {"perturbation.every_k": 5},
  "every_5_quarter": {"perturbation.every_k": 5} | _QUARTER,
  "look_5": {"look_sam.k": 5},
  "late": {"perturbation.start": 0.5} | _QUARTER,
  "early": {"perturbation.stop": 0.5} | _QUARTER,
}

# Published methods at full cost, a line each.
PUBLISHED: dict[str, dict[str, Any]] = {
  "asam": {**METHODS["asam"]},
  "asam_layerwise": {**METHODS["asam"], "perturbation.options.layerwise": True},
  "asam_linf": {**METHODS["asam"], "perturbation.options.norm": "linf"},
  "gsam": {**METHODS["gsam"]},
  "gsam_clean": {**METHODS["gsam"], "combine.options.minimize": "clean"},
  "wsam_decoupled": {
    **METHODS["sam"],
    "combine.name": "weighted",
    "combine.decoupled": True,
  },
  "vasso": {"perturbation.name": "vasso"},
  "fisher_sam": {"perturbation.name": "fisher_sam"},
  "gnp": {**METHODS["sam"], "combine.name": "gnp"},
  "esam": {**METHODS["sam"], "method.name": "esam"},
  "stable_sam": {**METHODS["sam"], "combine.name": "stable_sam"},
  "eigen_sam": {
    "perturbation.name": "eigen_sam",
    "perturbation.options.alpha": 0.2,
  },
  "layer_sam": {"perturbation.name": "layer_sam"},
  "look_layer_sam": {"perturbation.name": "layer_sam", "look_sam.k": 5},
  "gam": {
    **METHODS["sam"],
    "method.name": "gam",
    "method.options.norm_rho": 0.1,
  },
  "xsam": {
    **METHODS["sam"],
    "combine.name": "xsam",
    "combine.options.rho_max": 0.4,
  },
  "lookbehind": {
    **METHODS["sam"],
    "method.name": "lookbehind",
    "method.options.k": 2,
    "optimizer.name": "slow_sgdw",
    "optimizer.options.k": 2,
  },
  "le_sam": {"perturbation.name": "le_sam", "perturbation.options.sigma": 0.1},
  "unified_sam": {
    "perturbation.name": "unified_sam",
    "perturbation.options.lam": 0.5,
  },
  "zsharp": {"perturbation.name": "zsharp"},
  "gc_sam": {"perturbation.name": "gc_sam"},
  "sparse_sam_fisher": {"perturbation.name": "sparse_sam"},
  "sparse_sam_dynamic": {
    "perturbation.name": "sparse_sam",
    "perturbation.options.mask": "dynamic",
  },
  "cr_sam": {**METHODS["sam"], "method.name": "cr_sam"},
  "sampa": {**METHODS["sam"], "method.name": "sampa"},
  "bsam": {**METHODS["sam"], "method.name": "bsam", "optimizer.momentum": 0.0},
  "polyak_step": {
    **METHODS["sam"],
    "combine.name": "polyak_step",
    "optimizer.momentum": 0.0,
    "optimizer.learning_rate": 1.0,
    "optimizer.weight_decay": 0.0,
    "schedule.name": "constant",
  },
}

VARIANTS: dict[str, dict[str, Any]] = {
  "plain": {},
  "plain_38": {"epochs": 38},
  "plain_60": {"epochs": 60},
  "sam": {**METHODS["sam"]},
  "obf": {**METHODS["obf"]},
  **{
    f"{base}_{name}": {**METHODS[base], **changes}
    for base in ("sam", "obf")
    for name, changes in _CHEAPER.items()
  },
  "sam_eighth": {**METHODS["sam"], **_EIGHTH},
  # It needs no ascent: a sixteenth gives the loss and the accuracy.
  "momentum": {"perturbation.name": "momentum", "ascent.fraction": 0.0625},
  "friendly": _FRIENDLY,
  "friendly_quarter": _FRIENDLY | _QUARTER,
  "friendly_eighth": _FRIENDLY | _EIGHTH,
  "weighted": {**METHODS["sam"], "combine.name": "weighted"},
  **PUBLISHED,
}


def get_config(variant: str = "obf_quarter") -> config_dict.ConfigDict:
  config = fashion_mnist_2k.get_config("plain")
  config.data.label_noise = 0.2
  return apply_variant(config, variant, VARIANTS)
