"""Forgetting and sharpness along m, at the settings that validation chose.

    python main.py --job=study --config=configs/noisy_fashion_m.py \
        --workdir=runs/m_study

The MLP on 2,000 noisy images of Fashion-MNIST, with m = 1, 2, 4, ..., 128: the
second arm of docs/noisy_cifar10, whose choices are read from
docs/noisy_cifar10/m/choices.csv. Each network is measured as in docs/study;
five seeds.

Variants: plain_m128, and sam_mM, gamma0_mM and gamma1_mM (OBF) for each M.
"""

import csv
from pathlib import Path
from typing import Any

from ml_collections import config_dict

from configs import fashion_mnist_2k

_CHOICES = (
  Path(__file__).resolve().parents[1] / "docs/noisy_cifar10/m/choices.csv"
)
_METHODS = {"plain": "plain", "sam": "sam", "gamma0": "obf", "gamma1": "obf"}


def _grids() -> dict[str, str]:
  """A setting for each variant, in the words of `--grid`."""
  with _CHOICES.open() as file:
    rows = list(csv.DictReader(file))
  return {
    f"{row['method']}_m{row['m']}": ";".join(
      f"{key}={value}" for key, value in row.items() if "." in key and value
    )
    for row in rows
  }


STUDY: dict[str, dict[str, Any]] = {
  "arms": {"noisy": {"seeds": 5, "changes": {"data.label_noise": "0.2"}}},
  "grids": _grids(),
}


def get_config(variant: str = "sam_m1") -> config_dict.ConfigDict:
  method, _, m = variant.partition("_m")
  config = fashion_mnist_2k.get_config(_METHODS.get(method, variant))
  config.data.label_noise = 0.2
  if method != "plain":
    config.micro_batch_size, config.m_sharpness = int(m), "factored"
    config.ascent.gamma = float(method == "gamma1")
  return config
