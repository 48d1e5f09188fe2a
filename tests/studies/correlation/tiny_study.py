"""A tiny study on digits, and a table that is made up."""

from pathlib import Path

import numpy as np

from forgetsam.studies.correlation import Networks
from forgetsam.studies.correlation._names import FORGETTING, MEASURES

ROOT = Path(__file__).resolve().parents[3]

STUDY = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from configs import digits

STUDY = {{
  "arms": {{
    "noisy": {{"seeds": 2, "changes": {{"data.label_noise": "0.2"}}}},
    "clean": {{"seeds": 1, "changes": {{"data.label_noise": "0"}}}},
  }},
  "grids": {{
    "plain": "optimizer.weight_decay=0,0.1",
    "obf": "perturbation.rho=0.2;ascent.gamma=0,1;micro_batch_size=8",
  }},
}}


def get_config(variant="obf"):
  config = digits.get_config(variant)
  config.data.train_examples, config.data.validation = 256, 0.3
  config.batch_size, config.epochs = 64, 2
  config.micro_batch_size = None
  config.model.hidden = (8,)
  config.evaluation.batch_size = 64
  config.optimizer.name = "sgdw"
  return config
"""


def write_file(folder: Path) -> str:
  """Writes the study's file, and returns its path."""
  path = folder / "tiny.py"
  path.write_text(STUDY)
  return str(path)


def made_up_networks(count: int = 40) -> Networks:
  """A table in which the OBF probe orders test accuracies exactly."""
  rng = np.random.default_rng(0)
  half = count // 2
  networks: Networks = {
    "arm": np.array(["noisy"] * count),
    "method": np.array(["plain"] * half + ["obf"] * (count - half)),
    "gamma": np.array([np.nan] * half + [1.0] * (count - half)),
    "rho": np.array([0.0] * half + [0.1, 0.2] * ((count - half) // 2)),
    "m": np.full(count, 128),
    "learning_rate": np.tile([0.03, 0.1, 0.03, 0.1], count // 4),
    "weight_decay": np.tile([0.0, 0.0, 0.1, 0.1], count // 4),
    "seed": np.arange(count) % 2,
    "setting": np.array([f"s{i // 2}" for i in range(count)]),
    "diverged": np.arange(count) == count - 1,
    "epochs": np.full(count, 30),
    "seconds": np.full(count, 9.0),
  }
  for name in MEASURES:
    networks[name] = rng.normal(size=count)
  for name in FORGETTING:
    networks[f"{name}_se"] = np.full(count, 0.01)
    for epoch in (1, 10):
      networks[f"{name}@{epoch}"] = rng.normal(size=count)
  best = networks["obf_probe_conditional_train"]
  networks["test_accuracy"] = 0.8 + 0.01 * best
  networks["test_loss"] = 1 - 0.1 * best
  networks["accuracy_gap"] = rng.normal(size=count)
  for name in (*MEASURES, "test_accuracy", "test_loss", "accuracy_gap"):
    networks[name] = np.where(networks["diverged"], np.nan, networks[name])
  return networks
