"""Measures the cost of the probe of forgetting, at its default interval.

    PYTHONPATH=. python benchmarks/probe_cost.py --rounds 15

Blocks of steps with and without the probe take turns in one process, on the
recipe of `configs/fashion_mnist_2k.py`. Prints the ratio of their times: the
median over rounds, with quartiles, once per variant.
"""

import argparse
import itertools
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from forgetsam.experiment.build import (
  Experiment,
  build_experiment,
  build_sources,
)
from forgetsam.experiment.config import apply_overrides, load_config_file
from forgetsam.experiment.tables import markdown_table

VARIANTS = ("plain", "sam", "obf")


def main(argv: Sequence[str] | None = None) -> None:
  """Prints a Markdown table."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--rounds", type=int, default=15)
  rounds = parser.parse_args(argv).rounds
  rows = []
  for variant in VARIANTS:
    config = load_config_file(f"configs/fashion_mnist_2k.py:{variant}")
    apply_overrides(config, ["--config.probe.perturbations=sam,obf"])
    experiment = build_experiment(config, build_sources(config))
    steps = config.probe.every_steps
    plain, probed = measure(experiment, steps, rounds)
    low, middle, high = np.quantile(probed / plain, [0.25, 0.5, 0.75])
    ratio = f"{middle:.3f} ({low:.3f} to {high:.3f})"
    rows.append([variant, str(steps), f"{np.median(plain):.3f}", ratio])
  header = ["variant", "steps", "seconds without", "ratio with the probe"]
  print(markdown_table(header, rows), end="")


def measure(
  experiment: Experiment, steps: int, rounds: int
) -> tuple[np.ndarray, np.ndarray]:
  """Seconds of blocks of `steps`, without and with one probe at their end."""
  assert experiment.probe is not None
  batches = list(experiment.train_batches(0, experiment.steps_per_epoch))
  state = experiment.create_state()

  def block(state: Any, probes: bool) -> tuple[Any, float]:
    start = time.perf_counter()
    for batch in itertools.islice(itertools.cycle(batches), steps):
      state, _ = experiment.train_step(state, batch, experiment.key)
    if probes:
      jax.device_get(experiment.probe(state.params, state.model_state))
    jax.block_until_ready(state)
    return state, time.perf_counter() - start

  for probes in (False, True):  # compiles
    state, _ = block(state, probes)
  seconds = np.zeros((2, rounds))
  for i in range(rounds):
    for probes in (False, True) if i % 2 else (True, False):
      state, seconds[int(probes), i] = block(state, probes)
  return seconds[0], seconds[1]


if __name__ == "__main__":
  main()
