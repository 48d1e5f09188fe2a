"""Measures a step: time, operations, memory and compilation.

    PYTHONPATH=. python benchmarks/step_cost.py --rounds 15 --json costs.json

For an MLP, a CNN, a ViT and a ResNet: the plain step, ours with SAM, OBF, GSAM,
ASAM and random offsets, with 1 and 8 micro-batches (SAM and OBF also with those
in factors), and `optax.contrib.sam` in its opaque mode. Ours reports all of its
metrics; optax's reports the loss alone. All steps of a model take turns in one
process; ratios of times are medians over rounds, with quartiles. Prints
Markdown. `--micro_batches=1` leaves out the 8, which are long to compile.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax import contrib

import forgetsam as fs

RHO, LEARNING_RATE = 0.05, 0.05
FACTORED = ("sam", "obf")
LOSS = fs.softmax_cross_entropy()


class Setup(NamedTuple):
  """A model and its batch."""

  model: str
  options: dict[str, Any]
  image: tuple[int, int, int]
  batch: int


SETUPS = {
  "mlp": Setup("mlp", {"hidden": (256, 256)}, (28, 28, 1), 128),
  "cnn": Setup("cnn", {}, (28, 28, 1), 64),
  "vit": Setup("vit_tiny", {}, (28, 28, 1), 64),
  "resnet": Setup("resnet18_cifar", {"width": 16}, (32, 32, 3), 64),
}


class Step(NamedTuple):
  """A step that can be run again and again on its own state."""

  compile: Callable[[], Any]  # anew, to `(state, batch) -> state`
  start: Callable[[], Any]  # makes its first state


class Cost(NamedTuple):
  """Costs of a compiled step; operations and bytes by XLA's count."""

  seconds: list[float]  # of a step, one per round
  compile_seconds: list[float]  # of each compilation
  flops: float
  bytes_moved: float  # that its operations read and write
  temporary: int  # bytes that live only during the step


def perturbs() -> dict[str, tuple[Any, Any]]:
  """Ascent signal and perturbed gradient, by name."""
  obf = fs.output_bias_forgetting()
  return {
    "plain": (None, None),
    "sam": (None, fs.perturbed_gradient(fs.sam(RHO))),
    "obf": (obf, fs.perturbed_gradient(fs.sam(RHO))),
    "gsam": (None, fs.perturbed_gradient(fs.sam(RHO), fs.surrogate_gap(0.1))),
    "asam": (None, fs.perturbed_gradient(fs.asam(RHO))),
    "random": (None, fs.perturbed_gradient(fs.random_perturbation(RHO, 0))),
    "random, table": (
      None,
      fs.perturbed_gradient(fs.random_perturbation(RHO, 0, "table")),
    ),
  }


def our_step(
  setup: Setup, signal: Any, perturb: Any, micro_batches: int, **options: Any
) -> Step:
  """`make_train_step` as a user calls it, with further options."""
  module = fs.models.create(setup.model, num_classes=10, **setup.options)
  optimizer = fs.sgdw(LEARNING_RATE)
  key = jax.random.key(1)

  def start() -> Any:
    variables = fs.models.initialise(module, jax.random.key(0), setup.image)
    return fs.create_train_state(*variables, optimizer, perturb)

  def compiled() -> Any:
    step = fs.make_train_step(
      fs.models.forward(module),
      loss=LOSS,
      optimizer=optimizer,
      ascent=signal,
      perturb=perturb,
      micro_batch_size=setup.batch // micro_batches,
      **options,
    )
    program = step.lower(start(), batch_of(setup), key).compile()
    return _Program(program, lambda state, batch: (state, batch, key))

  return Step(compiled, start)


def optax_step(setup: Setup) -> Step:
  """SAM as optax's documentation writes it, with the loss as its metric."""
  module = fs.models.create(setup.model, num_classes=10, **setup.options)
  forward: Any = fs.models.forward(module)
  ascend = optax.chain(contrib.normalize(), optax.sgd(RHO))
  sam = contrib.sam(fs.sgdw(LEARNING_RATE), ascend, opaque_mode=True)
  key = jax.random.key(1)

  def step(state: Any, batch: Any) -> tuple[Any, jax.Array]:
    params, model_state, opt_state = state

    def loss_fn(p: Any) -> tuple[jax.Array, Any]:
      logits, new = forward(p, model_state, batch["image"], train=True, key=key)
      return LOSS(logits, batch["label"]), new

    (loss, model_state), grads = jax.value_and_grad(loss_fn, has_aux=True)(
      params
    )
    updates, opt_state = sam.update(
      grads,
      opt_state,
      params,
      grad_fn=lambda p, _: jax.grad(loss_fn, has_aux=True)(p)[0],
    )
    params = optax.apply_updates(params, updates)
    return (params, model_state, opt_state), loss

  def start() -> Any:
    params, model_state = fs.models.initialise(
      module, jax.random.key(0), setup.image
    )
    return params, model_state, sam.init(params)

  def compiled() -> Any:
    jitted = jax.jit(step, donate_argnums=0)
    return _Program(
      jitted.lower(start(), batch_of(setup)).compile(),
      lambda state, batch: (state, batch),
    )

  return Step(compiled, start)


class _Program:
  """A compiled step, and how it takes its arguments."""

  def __init__(self, compiled: Any, arguments: Callable[..., Any]):
    self.compiled, self._arguments = compiled, arguments

  def __call__(self, state: Any, batch: Any) -> Any:
    return self.compiled(*self._arguments(state, batch))[0]


def batch_of(setup: Setup) -> dict[str, jax.Array]:
  """Noise and labels."""
  images = jax.random.normal(jax.random.key(2), (setup.batch, *setup.image))
  return {"image": images, "label": jnp.arange(setup.batch) % 10}


def measure(
  steps: dict[str, Step], setup: Setup, rounds: int, compilations: int
) -> dict[str, Cost]:
  """Compiles every step some times, then lets them take turns."""
  batch = batch_of(setup)
  rng = np.random.default_rng(0)
  programs: dict[str, Any] = {}
  compile_seconds: dict[str, list[float]] = {name: [] for name in steps}
  for _ in range(compilations):
    for name in rng.permutation(list(steps)):
      jax.clear_caches()
      began = time.perf_counter()
      programs[name] = steps[name].compile()
      compile_seconds[name].append(time.perf_counter() - began)
  states = {name: step.start() for name, step in steps.items()}
  seconds: dict[str, list[float]] = {name: [] for name in steps}
  repeats = _repeats(programs["plain, 1"], steps["plain, 1"].start(), batch)
  for r in range(rounds + 1):
    for name in rng.permutation(list(steps)):
      began = time.perf_counter()
      for _ in range(repeats):
        states[name] = programs[name](states[name], batch)
      jax.block_until_ready(states[name])
      if r:  # the first round warms up
        seconds[name].append((time.perf_counter() - began) / repeats)
  return {
    name: _cost(program.compiled, seconds[name], compile_seconds[name])
    for name, program in programs.items()
  }


def _repeats(program: Any, state: Any, batch: Any) -> int:
  """Steps that take about a tenth of a second."""
  state = jax.block_until_ready(program(state, batch))
  began = time.perf_counter()
  jax.block_until_ready(program(state, batch))
  return max(1, round(0.1 / (time.perf_counter() - began)))


def _cost(compiled: Any, seconds: list[float], compiling: list[float]) -> Cost:
  counts = compiled.cost_analysis()
  return Cost(
    seconds,
    compiling,
    counts["flops"],
    counts["bytes accessed"],
    compiled.memory_analysis().temp_size_in_bytes,
  )


def table(costs: dict[str, Cost], parameter_bytes: int) -> str:
  """All as multiples of the plain step, times also of optax's."""
  from forgetsam.experiment.tables import markdown_table

  plain, theirs = costs["plain, 1"], costs["optax, 1"]
  header = ["step, micro-batches", "time, of plain's", "time, of optax's"]
  header += ["operations", "memory, beyond plain's, in copies of parameters"]
  header += ["compile time"]
  rows = []
  for name, cost in sorted(costs.items(), key=lambda item: item[0][-1]):
    times = _ratio(cost, plain), _ratio(cost, theirs)
    beyond = (cost.temporary - plain.temporary) / parameter_bytes
    compiling = np.min(cost.compile_seconds) / np.min(plain.compile_seconds)
    operations = f"{cost.flops / plain.flops:.2f}"
    rows.append(
      [name, *times, operations, f"{beyond:+.2f}", f"{compiling:.2f}"]
    )
  return markdown_table(header, rows)


def _ratio(cost: Cost, other: Cost) -> str:
  ratios = np.array(cost.seconds) / np.array(other.seconds)
  low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
  return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def micro_batch_line(costs: dict[str, Cost], parameter_bytes: int) -> str:
  """Time and memory traffic of eight micro-batches instead of one."""
  parts = []
  for name in (*perturbs(), *(f"{kind}, factored" for kind in FACTORED)):
    one, eight = costs[f"{name}, 1"], costs[f"{name}, 8"]
    moved = (eight.bytes_moved - one.bytes_moved) / 7 / parameter_bytes
    parts.append(f"{name} {_ratio(eight, one)}, {moved:.1f}")
  return (
    "Eight micro-batches against one: time, and copies of the parameters read "
    "or written for each further micro-batch: " + "; ".join(parts) + "."
  )


def main(argv: Sequence[str] | None = None) -> None:
  """Measures the chosen models, one after another."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--rounds", type=int, default=15)
  parser.add_argument("--compilations", type=int, default=3)
  parser.add_argument("--models", default=",".join(SETUPS))
  parser.add_argument("--micro_batches", default="1,8")
  parser.add_argument("--json", type=Path)
  options = parser.parse_args(argv)
  if "1" not in options.micro_batches.split(","):
    parser.error("--micro_batches must hold 1: all are compared with plain, 1")
  jax.config.update("jax_enable_compilation_cache", False)
  results = {}
  for name in options.models.split(","):
    setup = SETUPS[name]
    steps = {"optax, 1": optax_step(setup)}
    for n in map(int, options.micro_batches.split(",")):
      for kind, (signal, perturb) in perturbs().items():
        steps[f"{kind}, {n}"] = our_step(setup, signal, perturb, n)
        if kind in FACTORED:
          steps[f"{kind}, factored, {n}"] = our_step(
            *(setup, signal, perturb, n), m_sharpness="factored"
          )
    costs = measure(steps, setup, options.rounds, options.compilations)
    params = steps["plain, 1"].start().params
    size = sum(4 * x.size for x in jax.tree.leaves(params))
    print(
      f"\n### {name}: {setup.model}, {size / 4:,.0f} parameters, batch "
      f"{setup.batch}\n\n{table(costs, size)}\n",
      flush=True,
    )
    if "plain, 8" in costs:
      print(micro_batch_line(costs, size), flush=True)
    results[name] = {
      "parameter_bytes": size,
      "steps": {kind: cost._asdict() for kind, cost in costs.items()},
    }
  if options.json:
    options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
  main()
