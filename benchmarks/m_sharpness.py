"""Measures m-sharpness: plain, SAM in a loop, and SAM in factors, over m.

    PYTHONPATH=. python benchmarks/m_sharpness.py --setups "mlp,cnn" \
      --output docs/m_sharpness
    PYTHONPATH=. python benchmarks/m_sharpness.py --setups "mlp,cnn" --counts \
      --output docs/m_sharpness

All steps of a setup take turns in one process, each in a row of steps as
training runs it: a turn is the median of a row without its first, which finds
the caches as another step has left them. Ratios of times to the plain step's
are medians over rounds, with quartiles. The difference is the largest of
the gradients of the two, relative to the gradient's norm. `--counts` runs
nothing: XLA counts operations, bytes that are read and written, and bytes that
live during the step (a loop that is not unrolled counts once, and is left out).
Both print Markdown, and put their rows among those of `times.csv`, which the
picture is drawn of.

    PYTHONPATH=. python benchmarks/m_sharpness.py \
      --fit docs/m_sharpness/times.csv

makes of such a file the platform's costs, by which m_sharpness="auto" chooses.
"""

import argparse
import csv
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax

import forgetsam as fs
from benchmarks.step_cost import Setup, batch_of
from forgetsam.training._metrics import classification_metrics
from forgetsam.training._micro_batches import MOST_UNROLLED
from forgetsam.training._micro_step import Examples, Parts
from forgetsam.training.factored import _lengths
from forgetsam.training.factored._costs import COSTS, TABLE, Costs, estimate
from forgetsam.training.factored._plan import Factored, plan_factored

RHO = 0.05
BLOCK = 0.1  # seconds that a row of steps takes: 2 to 12 steps
LOSS = fs.sigmoid_cross_entropy()
SETUPS = {
  "mlp": Setup("mlp", {}, (28, 28, 1), 128),
  "vit 4 tokens": Setup("vit_tiny", {}, (8, 8, 1), 64),
  "vit 16 tokens": Setup("vit_tiny", {"width": 192}, (16, 16, 1), 64),
  "vit 64 tokens": Setup("vit_tiny", {}, (32, 32, 1), 64),
  "vit 196 tokens": Setup("vit_tiny", {}, (56, 56, 1), 32),
  "cnn": Setup("cnn", {}, (16, 16, 1), 64),
  "resnet": Setup("resnet18_cifar", {"width": 8}, (16, 16, 3), 32),
}
COLUMNS = ["model", "how", "m", "time", "time_25", "time_75", "difference"]
COLUMNS += ["operations", "moved", "temporary_mib"]
Rows = dict[tuple[str, str, int], dict[str, Any]]


class Step(NamedTuple):
  """A compiled step with what it takes."""

  run: Any
  state: Any
  batch: Any
  chunk: int


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
  batch = batch_of(setup)
  state = fs.create_train_state(params, model_state, optimizer, perturb)
  chunk = step.m_sharpness(state, batch).chunk
  run = step.lower(state, batch, jax.random.key(1)).compile()  # type: ignore[attr-defined]
  return Step(run, state, batch, chunk)


def _gradient(step: Step) -> jax.Array:
  state = jax.tree.map(jnp.copy, step.state)
  new, _ = step.run(state, step.batch, jax.random.key(1))
  moved = jax.tree.map(jnp.subtract, step.state.params, new.params)
  return jnp.concatenate([g.ravel() for g in jax.tree.leaves(moved)])


def measure(name: str, sizes: Sequence[int], rounds: int) -> Rows:
  """Times and differences of a setup, for each way and m."""
  setup = SETUPS[name]
  steps = {("plain", setup.batch): make_step(setup, None, "loop")}
  agreement = {}
  for m in sizes:
    for how in ("loop", "factored"):
      steps[how, m] = make_step(setup, m, how)
    loop, factored = (_gradient(steps[how, m]) for how in ("loop", "factored"))
    apart = jnp.max(jnp.abs(loop - factored)) / jnp.linalg.norm(loop)
    agreement[m] = float(apart)
  states = {kind: step.state for kind, step in steps.items()}
  seconds: dict[tuple[str, int], list[float]] = {kind: [] for kind in steps}
  for i in range(rounds + 1):
    for kind, step in steps.items():
      times = []
      while len(times) < 2 or (sum(times) < BLOCK and len(times) < 12):
        began = time.perf_counter()
        states[kind], metrics = step.run(
          states[kind], step.batch, jax.random.key(1)
        )
        jax.block_until_ready(metrics)
        times.append(time.perf_counter() - began)
      if i:  # the first round warms up
        seconds[kind].append(float(np.median(times[1:])))
  plain = np.array(seconds["plain", setup.batch])
  rows: Rows = {}
  for (how, m), times in seconds.items():
    low, middle, high = np.quantile(np.array(times) / plain, [0.25, 0.5, 0.75])
    rows[name, how, m] = {
      "time": round(float(middle), 3),
      "time_25": round(float(low), 3),
      "time_75": round(float(high), 3),
      "difference": f"{agreement[m]:.1e}" if how == "factored" else "",
    }
  return rows


def count(name: str, sizes: Sequence[int], rounds: int) -> Rows:
  """XLA's counts for a setup, for each way and m; nothing is run."""
  setup = SETUPS[name]
  kinds = [("plain", setup.batch)]
  kinds += [(how, m) for m in sizes for how in ("loop", "factored")]
  rows: Rows = {}
  for how, m in kinds:
    plain = how == "plain"
    # The gradients that are formed where norms cancel are no part of a step.
    with mock.patch.object(_lengths, "one_of", lambda fine, *both: both[0]()):
      step = make_step(setup, None if plain else m, "loop" if plain else how)
    cost = step.run.cost_analysis()
    size = sum(x.nbytes for x in jax.tree.leaves(step.state.params))
    if plain:
      operations = cost["flops"]
    looped = setup.batch // step.chunk > (
      1 if how == "factored" else MOST_UNROLLED
    )
    moved = cost["bytes accessed"] / size
    held = step.run.memory_analysis().temp_size_in_bytes
    rows[name, how, m] = {
      "operations": "" if looped else round(cost["flops"] / operations, 3),
      "moved": "" if looped else round(moved, 1),
      "temporary_mib": round(held / 2**20, 2),
    }
  return rows


def draw(rows: list[dict[str, Any]], path: Path) -> None:
  """Times against m: the loop's, and in factors."""
  import matplotlib.pyplot as plt

  names = list(dict.fromkeys(row["model"] for row in rows))
  columns = min(len(names), 4)
  lines = -(-len(names) // columns)
  figure, axes = plt.subplots(
    *(lines, columns),
    figsize=(3.2 * columns, 3.0 * lines),
    layout="constrained",
    squeeze=False,
  )
  for axis in axes.flat[len(names) :]:
    axis.remove()
  for axis, name in zip(axes.flat, names, strict=False):
    for how, colour in (("loop", "#b3443c"), ("factored", "#2a6f97")):
      mine = [r for r in rows if r["model"] == name and r["how"] == how]
      sizes = [int(r["m"]) for r in mine]
      times = [float(r["time"]) for r in mine]
      axis.plot(sizes, times, "o-", color=colour, label=how)
    axis.axhline(1, color="#777777", lw=1)
    axis.axhline(2, color="#777777", lw=1, ls=":")
    axis.set(title=name, xlabel="m, examples of a micro-batch")
    axis.set_xscale("log", base=2)
    axis.set_yscale("log", base=2)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_major_formatter("{x:g}")
  first = axes[0, 0]
  first.set_ylabel("time of a step, plain training = 1")
  first.legend(frameon=False)
  figure.savefig(path, dpi=120)


def fit(path: Path) -> Costs:
  """Costs with which `estimate` gives the measured ratios, in a times.csv."""
  import scipy.optimize

  with path.open(newline="") as file:
    rows = list(csv.DictReader(file))
  times = {
    (r["model"], r["how"], int(r["m"])): float(r["time"])
    for r in rows
    if r["time"]
  }
  cases = []
  for (name, how, m), seconds in times.items():
    setup = SETUPS[name]
    if how == "loop":
      ratio = seconds / times[name, "factored", m]
      cases.append((plan(setup, m), setup.batch // m, np.log(ratio)))

  def misfit(logs: np.ndarray) -> list[float]:
    costs = Costs(*np.exp(logs))
    # Only ratios are seen: this keeps the constants near where they begin.
    apart = [0.02 * (x - y) for x, y in zip(logs, start, strict=True)]
    for factored, count, ratio in cases:
      together, looped = estimate(factored, count, costs)
      # Where the two are close, the choice depends on it.
      apart.append((np.log(looped / together) - ratio) / (0.2 + abs(ratio)))
    return apart

  start = np.log(COSTS["cpu"])
  found = scipy.optimize.least_squares(misfit, start)
  costs = Costs(*(float(f"{x:.3g}") for x in np.exp(found.x)))
  for factored, count, ratio in cases:
    together, looped = estimate(factored, count, costs)
    seen, said = np.exp(ratio), looped / together
    print(f"{count} micro-batches: measured {seen:.2f}, by costs {said:.2f}")
  return costs


def plan(setup: Setup, m: int) -> Factored:
  """What a factored step of a setup would do."""
  module = fs.models.create(setup.model, num_classes=10, **setup.options)
  perturb = fs.perturbed_gradient(fs.sam(RHO))
  params, model_state = fs.models.initialise(
    module, jax.random.key(0), setup.image
  )
  state = fs.create_train_state(params, model_state, optax.sgd(0.1), perturb)
  parts = Parts(
    forward=fs.models.forward(module),
    loss=LOSS,
    ascent=None,
    perturb=optax.with_extra_args_support(perturb),
    metrics=classification_metrics,
    ascent_fraction=1.0,
    reads_ascent=True,
    reads_clean=False,
  )
  images = np.zeros((m, *setup.image), np.float32)
  examples = Examples(images, np.zeros(m, np.int32), None)
  return plan_factored(parts, state, examples, jax.random.key(0))


def read_rows(path: Path) -> Rows:
  """The rows of a file, in their order; none where there is no file."""
  if not path.exists():
    return {}
  with path.open(newline="") as file:
    return {
      (row["model"], row["how"], int(row["m"])): dict(row)
      for row in csv.DictReader(file)
    }


def write_rows(path: Path, rows: Rows) -> list[dict[str, Any]]:
  """Writes the file, its setups in the order of `SETUPS`."""
  order = list(SETUPS)
  names = sorted(
    rows, key=lambda k: (order.index(k[0]), k[1] != "plain", k[2], k[1])
  )
  found = [
    {c: rows[k].get(c, "") for c in COLUMNS}
    | dict(zip(COLUMNS, k, strict=False))
    for k in names
  ]
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open("w", newline="") as file:
    writer = csv.DictWriter(file, COLUMNS)
    writer.writeheader()
    writer.writerows(found)
  return found


def show(found: Rows) -> None:
  """Prints rows as Markdown."""
  columns = [c for c in COLUMNS[3:] if any(c in row for row in found.values())]
  print("| " + " | ".join([*COLUMNS[:3], *columns]) + " |")
  print("|---" * (3 + len(columns)) + "|")
  for kind, row in found.items():
    cells = [*kind, *(row.get(c, "") for c in columns)]
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the benchmark."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--setups", default=",".join(SETUPS))
  parser.add_argument("--m", default="1,2,8,32,128")
  parser.add_argument("--rounds", type=int, default=9)
  parser.add_argument("--counts", action="store_true", help="run nothing")
  parser.add_argument("--output", type=Path, help="a folder")
  parser.add_argument(
    "--fit", type=Path, metavar="CSV", help="write costs from times"
  )
  flags = parser.parse_args(argv)
  if flags.fit is not None:
    platform = jax.default_backend()
    table = COSTS | {platform: fit(flags.fit)}
    rows = {name: costs._asdict() for name, costs in table.items()}
    TABLE.write_text(json.dumps(rows, indent=2) + "\n")
    return
  print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}\n")
  work: Callable[..., Rows] = count if flags.counts else measure
  for name in flags.setups.split(","):
    batch = SETUPS[name].batch
    sizes = sorted({min(int(m), batch) for m in flags.m.split(",")})
    found = work(name, sizes, flags.rounds)
    show(found)
    if flags.output is not None:
      path = flags.output / "times.csv"
      known = read_rows(path)
      merged = {k: known.get(k, {}) | row for k, row in found.items()}
      written = write_rows(path, known | merged)
      if timed := [row for row in written if row["time"]]:
        draw(timed, flags.output / "times.png")


if __name__ == "__main__":
  main()
