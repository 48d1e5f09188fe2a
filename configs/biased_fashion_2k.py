"""2,000 images of Fashion-MNIST with a patch whose place tells the label.

    python main.py --config=configs/biased_fashion_2k.py:obf --workdir=/tmp/bias
    python -m forgetsam.studies.known_bias train --workdir=runs/known_bias

Expected: 0.97 test accuracy of obf, on images whose patch agrees with the label
19 times out of 20; the splits that the second command scores tell how much of
it is the patch.

Cost: one to five seconds a run on one CPU core, after a minute and a half for
building the set on first use, from fashion_mnist.

Variants: plain, sam, obf, random, asam, asam_obf, gsam, gsam_obf.
"""

from ml_collections import config_dict

from configs import fashion_mnist_2k


def get_config(variant: str = "obf") -> config_dict.ConfigDict:
  config = fashion_mnist_2k.get_config(variant)
  config.data.name = "biased_fashion"
  # Chosen for plain training on validation images with the same bias.
  config.optimizer.weight_decay = 0.2
  return config
