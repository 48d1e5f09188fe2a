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
quarter), _early (until then).
"""

from typing import Any

from ml_collections import config_dict

from configs import fashion_mnist_2k

_QUARTER, _EIGHTH = {"ascent.fraction": 0.25}, {"ascent.fraction": 0.125}
_FRIENDLY = {"perturbation.name": "friendly_sam"}
_EVERY_5 = {"perturbation.every_k": 5}

# Of SAM and of output bias forgetting alike.
_CHEAPER: dict[str, dict[str, Any]] = {
  "quarter": _QUARTER,
  "every_5": _EVERY_5,
  "every_5_quarter": _EVERY_5 | _QUARTER,
  "look_5": {"look_sam.k": 5},
  "late": {"perturbation.start": 0.5} | _QUARTER,
  "early": {"perturbation.stop": 0.5} | _QUARTER,
}

# What each changes, and in which variant of `fashion_mnist_2k`.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
  "plain": ("plain", {}),
  "plain_38": ("plain", {"epochs": 38}),
  "plain_60": ("plain", {"epochs": 60}),
  "sam": ("sam", {}),
  "obf": ("obf", {}),
  **{
    f"{base}_{name}": (base, changes)
    for base in ("sam", "obf")
    for name, changes in _CHEAPER.items()
  },
  "sam_eighth": ("sam", _EIGHTH),
  # It climbs nothing: a sixteenth is only looked at, for loss and accuracy.
  "momentum": (
    "sam",
    {"perturbation.name": "momentum", "ascent.fraction": 0.0625},
  ),
  "friendly": ("sam", _FRIENDLY),
  "friendly_quarter": ("sam", _FRIENDLY | _QUARTER),
  "friendly_eighth": ("sam", _FRIENDLY | _EIGHTH),
  "weighted": ("sam", {"combine.name": "weighted"}),
}


def get_config(variant: str = "obf_quarter") -> config_dict.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(
      f"variant {variant!r} is unknown; allowed: {', '.join(VARIANTS)}"
    )
  base, changes = VARIANTS[variant]
  config = fashion_mnist_2k.get_config(base)
  config.data.label_noise = 0.2
  config.update_from_flattened_dict(changes)
  return config
