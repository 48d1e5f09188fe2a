"""2,000 images of Fashion-MNIST: small enough to compare methods over seeds.

    python main.py --config=configs/fashion_mnist_2k.py:obf --workdir=/tmp/2k
    python main.py --job=sweep --config=configs/fashion_mnist_2k.py \
        --variants=plain,sam,obf --seeds=5 --workdir=/tmp/sweep

Expected: 0.825 test accuracy of obf. Methods differ more where a fifth of the
training labels is flipped, --config.data.label_noise=0.2; the 6,000 held-out
images keep their labels.

Cost: one to three seconds a run on one CPU core, after 10 to 20 seconds for the
first run of each variant.

Variants: plain, sam, obf, random, asam, asam_obf, gsam, gsam_obf.
"""

from ml_collections import config_dict

from forgetsam.experiment import apply_variant, base_config


def get_config(variant: str = "obf") -> config_dict.ConfigDict:
  config = base_config()
  config.data.name = "fashion_mnist"
  config.data.mean, config.data.std = (0.286,), (0.353,)
  config.data.train_examples, config.data.validation = 2000, 0.1
  config.model.name, config.model.hidden = "mlp", (256, 256)
  config.epochs, config.batch_size = 30, 128
  config.optimizer.name, config.optimizer.learning_rate = "sgdw", 0.05
  config.optimizer.weight_decay = 0.1
  config.schedule.warmup_epochs = 0.0
  config.ascent.activation = "softmax"
  config.perturbation.rho = 0.1
  apply_variant(config, variant)
  if config.perturbation.name == "asam":
    config.perturbation.rho = 1.0  # in units of the weights' own scale
  elif config.perturbation.name == "random":
    config.perturbation.rho = 1.0  # most of a random direction does not matter
  return config
