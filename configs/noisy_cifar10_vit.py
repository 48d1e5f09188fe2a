"""2,500 images of CIFAR-10, a fifth of them mislabelled: a small ViT.

    python main.py --config=configs/noisy_cifar10_vit.py:obf --workdir=DIR

The paper's recipe for ViTs in small: AdamW, sigmoid cross-entropy summed over
classes, a bias in the head, warm-up and decay, gradients clipped to norm 1, OBF
of the sigmoid. Plain training fits the training labels; there is no
augmentation. docs/noisy_cifar10/README.md has the protocol that this is for.

Cost: a minute on one CPU core (plain), double with a perturbation.

Variants: those of `configs/noisy_cifar10.py`; plain, random, sam, obf and
obf_gamma0 are compared.
"""

from ml_collections import config_dict

from configs import noisy_cifar10


def get_config(variant: str = "obf") -> config_dict.ConfigDict:
  config = noisy_cifar10.get_config(variant)
  config.data.mean, config.data.std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
  config.model.name, config.model.batch_norm = "vit_tiny", None
  config.model.patch_size, config.model.width = 8, 64
  config.model.head_bias = -4.0
  config.loss.name = "sigmoid_cross_entropy"
  config.optimizer.name, config.optimizer.clip = "adamw", 1.0
  config.optimizer.learning_rate, config.optimizer.weight_decay = 2e-3, 0.1
  config.ascent.activation = "sigmoid"
  if config.perturbation.name == "sam":
    config.perturbation.rho = 0.2
  return config
