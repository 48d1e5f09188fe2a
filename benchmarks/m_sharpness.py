"""Measures m-sharpness: plain, SAM in a loop, and SAM in factors, over m.

    PYTHONPATH=. python benchmarks/m_sharpness.py --rounds 9 \
      --output docs/m_sharpness

All steps of a model take turns in one process; ratios of times to the plain
step's are medians over rounds, with quartiles. Operations and bytes of memory
are XLA's counts (a loop that is not unrolled counts once, and is left out);
agreement is the largest difference of the gradients of the two, relative to
the gradient's norm. Prints Markdown; writes a CSV file and a picture.

    PYTHONPATH=. python benchmarks/m_sharpness.py \
      --fit docs/m_sharpness/times.csv

makes of such a file the platform's costs, by which m_sharpness="auto" chooses.
"""

import argparse
import csv
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import forgetsam as fs
from forgetsam.training._metrics import classification_metrics
from forgetsam.training._micro_batches import MOST_UNROLLED
from forgetsam.training._micro_step import Examples
from forgetsam.training.factored._costs import COSTS, TABLE, Costs, estimate
from forgetsam.training.factored._passes import Parts
from forgetsam.training.factored._step import Factored, plan_factored

RHO = 0.05
LOSS = fs.sigmoid_cross_entropy()


class Setup(NamedTuple):
  """A model and its batch."""

  model: str
  options: dict[str, Any]
  image: tuple[int, int, int]
  batch: int


SETUPS = {
  "mlp": Setup("mlp", {}, (28, 28, 1), 128),
  "vit 4 tokens": Setup("vit_tiny", {}, (8, 8, 1), 64),
  "vit 16 tokens": Setup("vit_tiny", {"width": 192}, (16, 16, 1), 64),
  "vit 64 tokens": Setup("vit_tiny", {}, (32, 32, 1), 64),
  "cnn": Setup("cnn", {}, (16, 16, 1), 64),
  "resnet": Setup("resnet18_cifar", {"width": 8}, (16, 16, 3), 32),
}


class Step(NamedTuple):
  """A compiled step with what it takes."""

  run: Any
  state: Any
  batch: Any
  flops: float
  temporary: int


def make_step(setup: Setup, m: int | None, how: str) -> Step:
  """A step with `sgd`, so that its update is the gradient; m None: plain."""
  module = fs.models.create(setup.model, num_classes=10, **setup.options)
  params, model_state = fs.models.initialise(
    module, jax.random.key(0), setup.image
  )
  perturb = None if m is None else fs.perturbed_gradient(fs.sam(RHO))
  optimizer = optax.sgd(0.01)
  step = fs.make_train_step(
    fs.models.forward(module),
    loss=LOSS,
    optimizer=optimizer,
    perturb=perturb,
    micro_batch_size=m,
    m_sharpness=how,
  )
  rng = np.random.RandomState(0)
  images = rng.randn(setup.batch, *setup.image).astype(np.float32)
  labels = rng.randint(0, 10, setup.batch)
  batch = jax.device_put({"image": images, "label": labels})
  state = fs.create_train_state(params, model_state, optimizer, perturb)
  run = step.lower(state, batch, jax.random.key(1)).compile()  # type: ignore[attr-defined]
  memory = run.memory_analysis().temp_size_in_bytes
  return Step(run, state, batch, run.cost_analysis()["flops"], memory)


def _gradient(step: Step) -> jax.Array:
  state = jax.tree.map(jnp.copy, step.state)
  new, _ = step.run(state, step.batch, jax.random.key(1))
  moved = jax.tree.map(jnp.subtract, step.state.params, new.params)
  return jnp.concatenate([g.ravel() for g in jax.tree.leaves(moved)])


def measure(
  setup: Setup, sizes: Sequence[int], rounds: int
) -> list[dict[str, Any]]:
  """One row for each way and m."""
  steps = {("plain", 0): make_step(setup, None, "loop")}
  agreement = {}
  for m in sizes:
    for how in ("loop", "factored"):
      steps[how, m] = make_step(setup, m, how)
    loop, factored = (_gradient(steps[how, m]) for how in ("loop", "factored"))
    apart = jnp.max(jnp.abs(loop - factored)) / jnp.linalg.norm(loop)
    agreement[m] = float(apart)
  states = {name: step.state for name, step in steps.items()}
  seconds: dict[tuple[str, int], list[float]] = {name: [] for name in steps}
  for i in range(rounds + 1):
    for name, step in steps.items():
      # The first of two finds the caches as another step has left them.
      for _ in range(2):
        began = time.perf_counter()
        states[name], metrics = step.run(
          states[name], step.batch, jax.random.key(1)
        )
        jax.block_until_ready(metrics)
      if i:  # the first round warms up
        seconds[name].append(time.perf_counter() - began)
  plain = np.array(seconds["plain", 0])
  rows = []
  for (how, m), step in steps.items():
    ratios = np.quantile(np.array(seconds[how, m]) / plain, [0.25, 0.5, 0.75])
    looped = how == "loop" and m and setup.batch // m > MOST_UNROLLED
    flops = step.flops / steps["plain", 0].flops
    rows.append(
      {
        "how": how,
        "m": m or setup.batch,
        "time": round(float(ratios[1]), 3),
        "time_25": round(float(ratios[0]), 3),
        "time_75": round(float(ratios[2]), 3),
        "operations": "" if looped else round(flops, 3),
        "temporary_mib": round(step.temporary / 2**20, 2),
        "difference": f"{agreement[m]:.1e}" if how == "factored" else "",
      }
    )
  return rows


def draw(rows: list[dict[str, Any]], path: Path) -> None:
  """Times against m: the loop's, and in factors."""
  import matplotlib.pyplot as plt

  names = list(dict.fromkeys(row["model"] for row in rows))
  figure, axes = plt.subplots(
    1, len(names), figsize=(3.2 * len(names), 3.0), layout="constrained"
  )
  for axis, name in zip(np.atleast_1d(axes), names, strict=True):
    for how, colour in (("loop", "#b3443c"), ("factored", "#2a6f97")):
      mine = [r for r in rows if r["model"] == name and r["how"] == how]
      sizes, times = [r["m"] for r in mine], [r["time"] for r in mine]
      axis.plot(sizes, times, "o-", color=colour, label=how)
    axis.axhline(1, color="#777777", lw=1)
    axis.axhline(2, color="#777777", lw=1, ls=":")
    axis.set(title=name, xlabel="m, examples of a micro-batch")
    axis.set_xscale("log", base=2)
    axis.set_yscale("log", base=2)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_major_formatter("{x:g}")
  first = np.atleast_1d(axes)[0]
  first.set_ylabel("time of a step, plain training = 1")
  first.legend(frameon=False)
  figure.savefig(path, dpi=120)


def fit(path: Path) -> Costs:
  """Costs with which `estimate` gives the measured ratios, in a times.csv."""
  import scipy.optimize

  with path.open(newline="") as file:
    rows = list(csv.DictReader(file))
  times = {(r["model"], r["how"], int(r["m"])): float(r["time"]) for r in rows}
  cases = []
  for (name, how, m), seconds in times.items():
    setup = SETUPS[name]
    count = setup.batch // m
    if how == "loop" and count > 1:
      ratio = seconds / times[name, "factored", m]
      cases.append((_plan(setup, m), count, np.log(ratio)))

  def misfit(logs: np.ndarray) -> list[float]:
    costs = Costs(*np.exp(logs))
    # Only ratios are seen: this keeps the constants near where they begin.
    apart = [0.02 * (x - y) for x, y in zip(logs, start, strict=True)]
    for factored, count, ratio in cases:
      together, looped = estimate(factored, count, costs)
      apart.append(np.log(looped / together) - ratio)
    return apart

  start = np.log(COSTS["cpu"])
  found = scipy.optimize.least_squares(misfit, start)
  off = found.fun[len(start) :]
  for (_, count, ratio), error in zip(cases, off, strict=True):
    seen, said = np.exp(ratio), np.exp(ratio + error)
    print(f"{count} micro-batches: measured {seen:.2f}, by costs {said:.2f}")
  return Costs(*(float(f"{x:.3g}") for x in np.exp(found.x)))


def _plan(setup: Setup, m: int) -> Factored:
  module = fs.models.create(setup.model, num_classes=10, **setup.options)
  perturb = fs.perturbed_gradient(fs.sam(RHO))
  params, model_state = fs.models.initialise(
    module, jax.random.key(0), setup.image
  )
  state = fs.create_train_state(params, model_state, optax.sgd(0.1), perturb)
  parts = Parts(
    fs.models.forward(module),
    LOSS,
    fs.loss_ascent(LOSS),
    optax.with_extra_args_support(perturb),
    classification_metrics,
    1.0,
    True,
  )
  images = np.zeros((m, *setup.image), np.float32)
  examples = Examples(images, np.zeros(m, np.int32), None)
  return plan_factored(parts, state, examples, jax.random.key(0))


def main() -> None:
  """Runs the benchmark."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--models", default=",".join(SETUPS))
  parser.add_argument("--m", default="1,2,8,32,128")
  parser.add_argument("--rounds", type=int, default=9)
  parser.add_argument("--output", type=Path)
  parser.add_argument(
    "--fit", type=Path, metavar="CSV", help="write costs from times"
  )
  flags = parser.parse_args()
  if flags.fit is not None:
    platform = jax.default_backend()
    table = COSTS | {platform: fit(flags.fit)}
    rows = {name: costs._asdict() for name, costs in table.items()}
    TABLE.write_text(json.dumps(rows, indent=2) + "\n")
    return
  print(f"{jax.devices()[0].device_kind}, {jax.__version__}\n")
  print("| model | m | loop | factored | operations | memory | difference |")
  print("|---|---|---|---|---|---|---|")
  rows = []
  for name in flags.models.split(","):
    setup = SETUPS[name]
    sizes = sorted({min(int(m), setup.batch) for m in flags.m.split(",")})
    found = measure(setup, sizes, flags.rounds)
    rows += [{"model": name, **row} for row in found]
    by = {(row["how"], row["m"]): row for row in found}
    for m in sizes:
      one, other = by["loop", m], by["factored", m]
      print(
        f"| {name} | {m} | {one['time']:.2f} | {other['time']:.2f} "
        f"({other['time_25']:.2f} to {other['time_75']:.2f}) "
        f"| {other['operations']:.2f} | {other['temporary_mib']:.1f} MiB "
        f"| {other['difference']} |",
        flush=True,
      )
  if flags.output is not None:
    flags.output.mkdir(parents=True, exist_ok=True)
    with (flags.output / "times.csv").open("w", newline="") as file:
      writer = csv.DictWriter(file, rows[0])
      writer.writeheader()
      writer.writerows(rows)
    draw(rows, flags.output / "times.png")


if __name__ == "__main__":
  main()
