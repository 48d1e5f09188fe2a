"""Does forgetting predict generalisation? The grid of the correlation study.

    python main.py --job=study --config=configs/study_fashion.py \
        --workdir=runs/study

It trains the networks of `STUDY`, on 2,000 images of Fashion-MNIST, measures
forgetting and sharpness, and writes a table, a report and plots; the same
command goes on where it stopped. `--arms=noisy` takes one arm alone.
docs/study has what came out.

Variants: those of `configs/fashion_mnist_2k.py`, of which this is a copy.
"""

from typing import Any

from ml_collections import config_dict

from configs import fashion_mnist_2k

_REST = "optimizer.learning_rate=0.03,0.1;optimizer.weight_decay=0,0.1"

# Arms: what each changes, its seeds, and the split to test on where it is not
# the set's own. Grids: of each variant, as for
# `--grid`. Few seeds of many settings, since it is settings that differ.
STUDY: dict[str, dict[str, Any]] = {
  "arms": {
    "noisy": {"seeds": 2, "changes": {"data.label_noise": "0.2"}},
    "clean": {"seeds": 1, "changes": {"data.label_noise": "0"}},
    # Trained where a patch tells the label, tested where it tells nothing.
    "biased": {
      "seeds": 1,
      "changes": {"data.name": "biased_fashion"},
      "test": "test_random",
    },
  },
  "grids": {
    "plain": (
      "optimizer.learning_rate=0.01,0.03,0.1,0.2;"
      "optimizer.weight_decay=0,0.1,0.2"
    ),
    "sam": "perturbation.rho=0.05,0.1,0.2;micro_batch_size=128,32;" + _REST,
    "obf": (
      "ascent.gamma=0,1;perturbation.rho=0.1,0.2,0.4;micro_batch_size=128,32;"
      + _REST
    ),
    "gsam": "perturbation.rho=0.05,0.1,0.2;" + _REST,
    "asam": "perturbation.rho=0.5,1,2;" + _REST,
    "random": "perturbation.rho=1,4;" + _REST,
  },
}


def get_config(variant: str = "obf") -> config_dict.ConfigDict:
  return fashion_mnist_2k.get_config(variant)
