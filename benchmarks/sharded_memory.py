"""Predicts a device's memory and traffic, data-parallel and sharded.

    PYTHONPATH=. python benchmarks/sharded_memory.py
    PYTHONPATH=. python benchmarks/sharded_memory.py --check

For ViTs on images of 224 pixels, with AdamW and SAM: bytes that a device holds
and sends in a step, on a mesh ("data",) and on ("data", "fsdp"). Activations
are counted by tracing the backward pass, all else follows from the parameters'
sizes; nothing is compiled. `--check` compiles the step of a small ViT for eight
virtual CPU devices, on both meshes, and prints XLA's plan beside the
prediction; it takes minutes. Both print Markdown.
"""

import argparse
import functools
import os
from typing import Any, NamedTuple

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType

import forgetsam as fs
from forgetsam.experiment.tables import markdown_table

BATCH, MICRO = 4096, 64
DEVICES, GROUP = 64, 8
# Copies of the parameters beside them: the sum of gradients, the moved
# parameters, and the gradient there, in which the ascent gradient was.
COPIES = 3
OPT_STATE = 2  # of AdamW, in parameters
PASSES = 2  # SAM's, each forwards and backwards
BATCHES_HELD = 3  # prefetched, in use, and its checked copy


class Setup(NamedTuple):
  """A ViT and the side of its images."""

  options: dict[str, Any]
  side: int = 224


VITS = {
  "ViT-S/16": Setup({}),
  "ViT-B/16": Setup({"width": 768, "num_heads": 12}),
  "ViT-L/16": Setup({"width": 1024, "depth": 24, "num_heads": 16}),
  "ViT-g/14": Setup(
    {"patch_size": 14, "width": 1408, "depth": 40, "num_heads": 16}
  ),
}
# Compiled in a minute: tokens as of 64 pixels, and a third of the depth.
SMALL = Setup({"depth": 4}, side=64)


class Prediction(NamedTuple):
  """Bytes of a device: what it keeps between steps, adds in one, and sends."""

  state: float
  step: float
  sent: float


def abstract(setup: Setup, dtype: str) -> tuple[Any, Any]:
  """The forward function, and the shapes of the parameters."""
  module = fs.models.create(
    "vit_s16", num_classes=1000, dtype=dtype, **setup.options
  )
  shape = (setup.side, setup.side, 3)
  initialise = functools.partial(
    fs.models.initialise, module, image_shape=shape
  )
  params, _ = jax.eval_shape(initialise, jax.random.key(0))
  return fs.models.forward(module), params


def num_bytes(tree: Any) -> float:
  """Bytes of a tree's arrays."""
  return float(sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree)))


def activations(setup: Setup, forward: Any, params: Any) -> float:
  """Bytes that an example adds to what the backward pass keeps."""

  def kept(size: int) -> float:
    def pullback(params: Any, images: Any) -> Any:
      def logits(p: Any) -> Any:
        return forward(p, {}, images, train=True, key=None)[0]

      return jax.vjp(logits, params)[1]

    images = images_of(setup, size)
    return num_bytes(jax.eval_shape(pullback, params, images))

  return kept(3) - kept(2)


def images_of(setup: Setup, size: int) -> Any:
  """The shape of a batch's images."""
  return jax.ShapeDtypeStruct((size, setup.side, setup.side, 3), jnp.float32)


def predict(
  setup: Setup, dtype: str, batch: int, micro: int, data: int, fsdp: int
) -> Prediction:
  """Predicts the step on a mesh of `data` groups of `fsdp` devices."""
  forward, params = abstract(setup, dtype)
  whole = num_bytes(params)
  part = whole / fsdp
  example = activations(setup, forward, params)
  images = num_bytes(images_of(setup, batch)) / (data * fsdp)
  held = COPIES * part + micro / fsdp * example
  if fsdp > 1:  # gathered for a pass, and gradients not yet divided
    held += 2 * whole
  # A ring moves (n - 1) / n of what it gathers, and of what it adds up.
  moved = (fsdp - 1) / fsdp * whole
  per_micro = PASSES * (2 * moved + moved)  # two gathers, one reduction
  micro_batches = batch / data / micro
  reduced = 2 * (data - 1) / data * part
  return Prediction(
    state=(1 + OPT_STATE) * part + BATCHES_HELD * images,
    step=held,
    sent=micro_batches * per_micro + reduced,
  )


def table() -> str:
  """The predictions for all models, with bfloat16's activations."""
  rows = []
  for name, setup in VITS.items():
    _, params = abstract(setup, "bfloat16")
    for data, fsdp in ((DEVICES, 1), (DEVICES // GROUP, GROUP)):
      found = predict(setup, "bfloat16", BATCH, MICRO, data, fsdp)
      mesh = f"({data},)" if fsdp == 1 else f"({data}, {fsdp})"
      numbers = f"{num_bytes(params) / 4e6:,.0f} M"
      total = found.state + found.step
      rows.append(
        [name, numbers, mesh, *map(gigabytes, (*found[:2], total, found.sent))]
      )
  header = ["model", "parameters", "mesh", "state", "step", "both", "sent"]
  return markdown_table(header, rows)


def gigabytes(x: float) -> str:
  """Bytes in GB, for a table."""
  return f"{x / 1e9:.2f} GB"


def check(batch: int = 256, micro: int = 32) -> str:
  """XLA's plan for the small ViT, in float32, beside the prediction."""
  rows = []
  for shape in ((8,), (2, 4), (1, 8)):
    data, fsdp = (*shape, 1)[:2]
    state, step = planned(SMALL, shape, batch, micro)
    found = predict(SMALL, "float32", batch, micro, data, fsdp)
    # Of the images, this program takes one batch, and not three.
    images = num_bytes(images_of(SMALL, batch)) / (data * fsdp)
    predicted = found.state - (BATCHES_HELD - 1) * images
    rows.append(
      [
        str(shape),
        *(f"{x / 1e6:.1f} MB" for x in (predicted, state, found.step, step)),
        f"{found.step / step:.2f}",
      ]
    )
  header = ["mesh", "state", "XLA's", "step", "XLA's", "step: ratio"]
  return markdown_table(header, rows)


def planned(
  setup: Setup, shape: tuple[int, ...], batch: int, micro: int
) -> tuple[int, int]:
  """Bytes of a compiled step's arguments, and of what lives during it."""
  # Loops, as on accelerators: the CPU's program would unroll micro-batches.
  fs.training._micro_batches.MOST_UNROLLED = 1  # type: ignore[attr-defined]
  mesh = jax.make_mesh(
    shape,
    ("data", "fsdp")[: len(shape)],
    axis_types=(AxisType.Auto,) * len(shape),
  )
  forward, params = abstract(setup, "float32")
  optimizer = optax.adamw(1e-3)
  perturb = fs.perturbed_gradient(fs.sam(0.1))
  step = fs.make_train_step(
    forward,
    loss=fs.softmax_cross_entropy(),
    optimizer=optimizer,
    perturb=perturb,
    micro_batch_size=micro,
    mesh=mesh,
  )
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), params)
  state = fs.create_train_state(zeros, {}, optimizer, perturb, mesh)
  labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
  examples = {"image": images_of(setup, batch), "label": labels}
  plan = step.lower(state, examples, jax.random.key(0)).compile()  # type: ignore[attr-defined]
  memory = plan.memory_analysis()
  return memory.argument_size_in_bytes, memory.temp_size_in_bytes


def main() -> None:
  """Prints the predictions, or the check of them."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--check", action="store_true")
  print(check() if parser.parse_args().check else table())


if __name__ == "__main__":
  main()
