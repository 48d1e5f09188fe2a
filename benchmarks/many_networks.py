"""The fastest way to train many small networks on this machine.

    python benchmarks/many_networks.py

Times an epoch of SAM on 2,000 images of Fashion-MNIST, as the correlation study
trains (`configs/study_fashion.py`), in three ways that all compile once: one
step a call; the epoch in one loop on the device, one network after another; and
that loop over several networks at once. They take turns, so that other work on
the machine slows all of them. Prints milliseconds of a network's step, the
fastest of the repeats, and ratios.
"""

import argparse
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from forgetsam.experiment.build import build_data, build_sources
from forgetsam.experiment.config import apply_overrides, load_config_file
from forgetsam.experiment.sweep._program import Program, RunBatches, take_apart

FILE = "configs/study_fashion.py:sam"


def epochs(networks: int, m: int) -> tuple[dict[str, Callable[[], None]], int]:
  """An epoch of `networks` networks in each way, and its steps."""
  config = load_config_file(FILE)
  apply_overrides(config, [f"--config.micro_batch_size={m}"])
  images = build_data(config)
  parts = take_apart(config)
  sources = build_sources(config, images)
  program = Program(parts, sources)
  source = RunBatches(config, sources.train)
  steps = program.steps_per_epoch
  (xs,) = list(source.chunks(0, steps, steps))
  seeds = [parts.numbers | {"seed": seed} for seed in range(networks)]
  stacked = jax.tree.map(
    lambda *n: jnp.stack(list(map(jnp.asarray, n))), *seeds
  )
  together = jax.jit(
    jax.vmap(program.advance, in_axes=(0, 0, None, None)), donate_argnums=1
  )
  states = [program.start(numbers) for numbers in seeds]
  all_states = jax.vmap(program.start)(stacked)

  def one_by_one() -> None:
    for i, numbers in enumerate(seeds):
      for x in xs:
        states[i], _ = program.advance(
          numbers, states[i], source.resident, x[None]
        )
    jax.block_until_ready(states)

  def loop() -> None:
    for i, numbers in enumerate(seeds):
      states[i], _ = program.advance(numbers, states[i], source.resident, xs)
    jax.block_until_ready(states)

  def batched_loop() -> None:
    nonlocal all_states
    all_states, _ = together(stacked, all_states, source.resident, xs)
    jax.block_until_ready(all_states)

  ways = {
    "a call for each step": one_by_one,
    "scan over steps": loop,
    f"scan, vmap over {networks}": batched_loop,
  }
  return ways, steps


def main() -> None:
  """Times all ways and prints a table."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--networks", type=int, default=4)
  parser.add_argument("--repeats", type=int, default=7)
  arguments = parser.parse_args()
  for m in (128, 32):
    ways, steps = epochs(arguments.networks, m)
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.repeats + 1):  # the first compiles
      for name, run in ways.items():
        began = time.perf_counter()
        run()
        spent[name].append(time.perf_counter() - began)
    scale = 1000 / steps / arguments.networks
    best = {name: scale * min(times[1:]) for name, times in spent.items()}
    print(f"m = {m}, {arguments.networks} networks")
    for name, value in best.items():
      ratio = value / best["scan over steps"]
      middle = scale * float(np.median(spent[name][1:]))
      print(f"  {name:22} {value:6.2f} ms (median {middle:.2f})  {ratio:5.2f}")


if __name__ == "__main__":
  main()
