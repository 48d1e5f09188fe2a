"""Predicts time, memory and traffic of a step: python scripts/predict_scale.py.

Operations and array sizes of the whole step are counted by tracing it at the
models' real sizes; nothing is compiled or run. The accelerator's figures and
the reached share of its peak are assumed, and flags change them. The table is
an estimate, not a measurement.

    --models=vit_s16,resnet50 --devices=1,8,64,512 --batch_size=4096
    --micro_batch_size=64 --dtype=bfloat16 --utilisation=0.4
    --check=MODEL   compiles the plain step for this machine and prints XLA's
                    memory per example beside the count; takes minutes
"""

import argparse
import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

import forgetsam as fs
from forgetsam.experiment.tables import markdown_table

IMAGE = (224, 224, 3)
CLASSES = 1000
METHODS = ("plain", "SAM", "OBF")
BATCHES_HELD = 3  # on a device: prefetched, in use, and its checked copy
COUNTED_BATCH = 8  # operations and activations grow in proportion to it


@dataclasses.dataclass(frozen=True)
class Machine:
  """An assumed device: NVIDIA's figures for an H100 SXM, per second."""

  flops: float = 989e12  # dense bfloat16
  memory: float = 3.35e12  # bytes to and from its memory
  inside: float = 450e9  # bytes each way to devices of its host
  outside: float = 50e9  # bytes each way to other hosts
  devices: int = 8  # per host
  utilisation: float = 0.4  # share of `flops` that the step reaches
  cpu_seconds: float = 2.7e-3  # of one core to read, decode and crop an image


@dataclasses.dataclass(frozen=True)
class Counts:
  """Counts of a traced step: operations and bytes."""

  flops: float  # per example
  activations: float  # per example, that the backward pass keeps
  params: float
  opt_state: float
  reduced: float  # that the devices average
  copies: int  # of the parameters, that a step holds beside them


def count(model: str, method: str, dtype: str) -> Counts:
  """Counts a step of a registered model and one of `METHODS`."""
  forward, params, model_state = abstract_model(model, dtype)
  step, state = abstract_step(model, method, forward, params, model_state)
  key = jax.eval_shape(jax.random.key, 0)
  analysis = step.lower(state, abstract_batch(COUNTED_BATCH), key)
  flops = analysis.cost_analysis()["flops"]
  kept = [
    kept_bytes(forward, params, model_state, size)
    for size in (COUNTED_BATCH, 2 * COUNTED_BATCH)
  ]
  return Counts(
    flops=flops / COUNTED_BATCH,
    activations=(kept[1] - kept[0]) / COUNTED_BATCH,
    params=num_bytes(params),
    opt_state=num_bytes(state.opt_state),
    reduced=num_bytes(params) + num_bytes(model_state),
    # The gradient; with an ascent its gradient and params + delta, too.
    copies=1 if method == "plain" else 3,
  )


def abstract_model(name: str, dtype: str) -> tuple[Any, Any, Any]:
  """Forward function, and the shapes of parameters and model state."""
  module = fs.models.create(name, num_classes=CLASSES, dtype=jnp.dtype(dtype))
  initialise = functools.partial(
    fs.models.initialise, module, image_shape=IMAGE
  )
  params, model_state = jax.eval_shape(initialise, jax.random.key(0))
  return fs.models.forward(module), params, model_state


def abstract_step(
  model: str, method: str, forward: Any, params: Any, model_state: Any
) -> tuple[Any, Any]:
  """The jitted step with one micro-batch per device, and its state's shapes."""
  optimizer = fs.sgdw(0.1, momentum=0.9, weight_decay=1e-4)
  if model.startswith("vit"):
    optimizer = optax.adamw(1e-3, weight_decay=0.3)
  plain, obf = method == "plain", method == "OBF"
  perturb = None if plain else fs.perturbed_gradient(fs.sam(0.1))
  step = fs.make_train_step(
    forward,
    loss=fs.softmax_cross_entropy(),
    optimizer=optimizer,
    ascent=fs.output_bias_forgetting() if obf else None,
    perturb=perturb,
  )
  state = jax.eval_shape(
    lambda p, s: fs.create_train_state(p, s, optimizer, perturb),
    params,
    model_state,
  )
  return step, state


def abstract_batch(size: int) -> dict[str, Any]:
  """A batch's shapes."""
  return {
    "image": jax.ShapeDtypeStruct((size, *IMAGE), jnp.float32),
    "label": jax.ShapeDtypeStruct((size,), jnp.int32),
  }


def kept_bytes(forward: Any, params: Any, model_state: Any, size: int) -> float:
  """Bytes kept for the backward pass, before XLA fuses or rematerialises."""

  def pullback(params: Any, model_state: Any, images: Any) -> Any:
    def logits(p: Any) -> Any:
      key = jax.random.key(0)
      return forward(p, model_state, images, train=True, key=key)[0]

    return jax.vjp(logits, params)[1]

  images = abstract_batch(size)["image"]
  return num_bytes(jax.eval_shape(pullback, params, model_state, images))


def num_bytes(tree: Any) -> float:
  """Bytes of a tree's arrays."""
  return float(
    sum(
      x.size * x.dtype.itemsize
      for x in jax.tree.leaves(tree)
      if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    )
  )


@dataclasses.dataclass(frozen=True)
class Prediction:
  """Seconds and bytes of a step, per device."""

  devices: int
  micro_batch_size: int
  compute: float
  update: float
  traffic: float
  reduce: float
  memory: float
  memory_sharded: float

  @property
  def step(self) -> float:
    """Seconds of a step; nothing overlaps, as the all-reduce comes last."""
    return self.compute + self.update + self.reduce


def predict(
  counts: Counts, machine: Machine, devices: int, batch: int, micro: int
) -> Prediction:
  """Predicts the step of a batch that is split over devices."""
  share = batch // devices
  micro = min(micro, share)
  traffic = 2 * (devices - 1) / devices * counts.reduced
  speed = machine.inside if devices <= machine.devices else machine.outside
  # Read parameters, gradient and state; write parameters and state.
  moved = 3 * counts.params + 2 * counts.opt_state
  held = (1 + counts.copies) * counts.params + micro * counts.activations
  held += BATCHES_HELD * share * num_bytes(abstract_batch(1)["image"])
  return Prediction(
    devices=devices,
    micro_batch_size=micro,
    compute=share * counts.flops / (machine.flops * machine.utilisation),
    update=moved / machine.memory,
    traffic=traffic,
    reduce=traffic / speed,
    memory=held + counts.opt_state,
    memory_sharded=held + counts.opt_state / devices,
  )


def section(
  model: str, counts: dict[str, Counts], options: argparse.Namespace
) -> str:
  """A model's title, counts and table."""
  machine = Machine(utilisation=options.utilisation)
  first = counts[METHODS[0]]
  flops = ", ".join(f"{m} {c.flops / 1e9:.1f}" for m, c in counts.items())
  header = ["devices", "m", "method", "step", "compute", "update"]
  header += ["all-reduce", "sent by a device", "memory", "with `shard_state`"]
  header += ["images/s a host", "cores a host"]
  rows = []
  for devices, (method, counted) in itertools.product(
    options.devices, counts.items()
  ):
    p = predict(
      counted, machine, devices, options.batch_size, options.micro_batch_size
    )
    hosts = max(1, devices // machine.devices)
    images = options.batch_size / p.step / hosts
    times = (p.step, p.compute, p.update, p.reduce)
    rows.append(
      [
        *(str(devices), str(p.micro_batch_size), method),
        *(f"{1e3 * seconds:.1f} ms" for seconds in times),
        f"{p.traffic / 1e6:.0f} MB",
        *(f"{m / 1e9:.1f} GB" for m in (p.memory, p.memory_sharded)),
        *(f"{images:,.0f}", f"{images * machine.cpu_seconds:.0f}"),
      ]
    )
  return (
    f"\n### {model}\n\n{first.params / 4e6:.1f} M parameters; an example: "
    f"{flops} GFLOP, and {first.activations / 1e6:.0f} MB of activations in "
    f"{options.dtype}.\n\n{markdown_table(header, rows)}"
  )


def check(model: str, dtype: str) -> None:
  """Prints XLA's planned memory on this machine beside the count."""
  forward, params, model_state = abstract_model(model, dtype)
  step, state = abstract_step(model, "plain", forward, params, model_state)
  key = jax.eval_shape(jax.random.key, 0)
  found = []
  for size in (2, 4):
    compiled = step.lower(state, abstract_batch(size), key).compile()
    found.append(compiled.memory_analysis().temp_size_in_bytes)
  counted = count(model, "plain", dtype).activations
  print(
    f"{model}, {dtype}: XLA plans {(found[1] - found[0]) / 2e6:.0f} MB of "
    f"temporary memory for each example here; counted {counted / 1e6:.0f} MB"
  )


def main(arguments: Sequence[str] | None = None) -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument("--models", default="vit_s16,resnet50")
  parser.add_argument("--devices", default="1,8,64,512")
  parser.add_argument("--batch_size", default=4096, type=int)
  parser.add_argument("--micro_batch_size", default=64, type=int)
  parser.add_argument("--dtype", default="bfloat16")
  parser.add_argument("--utilisation", default=0.4, type=float)
  parser.add_argument("--check")
  options = parser.parse_args(arguments)
  options.devices = [int(number) for number in options.devices.split(",")]
  if options.check:
    check(options.check, options.dtype)
    return
  for model in options.models.split(","):
    counts = {m: count(model, m, options.dtype) for m in METHODS}
    print(section(model, counts, options), end="")


if __name__ == "__main__":
  main()
