"""A regression: scikit-learn's diabetes set, 442 patients of 10 numbers each.

    python main.py --config=configs/regression.py:sam --workdir=/tmp/regression

The data are a function in this very file, and the loss is optax's: both are
named as `module:attribute`. The metrics are the mean squared and the mean
absolute error, and the best checkpoint has the smallest validation loss.

Expected: a test error of 0.53 of sam and 0.55 of plain, in units of the
progression's variance, over three seeds (88 test patients; the standard errors
are 0.01). Cost: a second on one CPU core, after 10 to 20 s of imports and
compilation.

Variants: plain, sam, random, asam, gsam; OBF needs classes.
"""

import numpy as np
from ml_collections import config_dict

from forgetsam.experiment import apply_variant, base_config

VARIANTS = {
  "plain": {},
  "sam": {"perturbation.name": "sam"},
  "random": {"perturbation.name": "random"},
  "asam": {"perturbation.name": "asam"},
  "gsam": {"perturbation.name": "sam", "combine.name": "surrogate_gap"},
}


def diabetes() -> dict[str, np.ndarray]:
  """Ten numbers of each patient, and the disease's progression in a year."""
  from sklearn.datasets import load_diabetes

  features, progression = load_diabetes(return_X_y=True)
  # Both of about unit variance: features come with 1 over their number.
  features = features * len(features) ** 0.5
  progression = (progression - 152.0) / 77.0
  return {"inputs": features, "targets": progression[:, None]}


def get_config(variant: str = "sam") -> config_dict.ConfigDict:
  config = base_config()
  config.data.name, config.data.validation = "regression:diabetes", 0.2
  config.model.name, config.model.hidden = "mlp", (64, 64)
  config.loss.name, config.metric.name = "optax:squared_error", "regression"
  config.epochs, config.batch_size = 20, 32
  config.optimizer.learning_rate, config.optimizer.weight_decay = 3e-3, 0.1
  config.perturbation.rho = 0.1
  config.evaluation.every_epochs = 2
  apply_variant(config, variant, VARIANTS)
  return config
