"""Checks the core on the device at hand: python scripts/check_accelerator.py.

Needs JAX, Flax, Optax, jaxtyping and NumPy; what needs more is skipped by name.
Writes `accelerator.md` and `accelerator.json` into --output (the working
directory), in about five minutes on a GPU: what would begin after --minutes is
skipped, too. Exit code: 1 where something fails.

- `contract`: pytest on the transforms' contract, closed forms and numerics
- `signal`: OBF's signal of bfloat16 logits, and the ascent gradient it gives
- `traces`: the official code's runs, in float32 under two matmul precisions
- `steps`: times, compile times and memory of plain, SAM and OBF steps
- `m_sharpness`: the same over the size of the micro-batches
- `input`: images per second of the input pipeline, and what the steps take

`--smoke` takes tiny models and one of everything, to try the script itself.
"""

import argparse
import functools
import importlib.util
import inspect
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault(
  "XLA_PYTHON_CLIENT_PREALLOCATE", "false"
)  # pytest's share
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402

import forgetsam as fs  # noqa: E402
from benchmarks import step_cost  # noqa: E402

Row = dict[str, Any]
CONTRACT = ("test_optax_contract", "test_closed_forms", "test_numerics")
IMAGE = (224, 224, 3)
BF16 = {"dtype": "bfloat16"}
SETUPS = {
  "mlp": step_cost.SETUPS["mlp"],
  "vit_s32": step_cost.Setup("vit_s32", BF16, IMAGE, 256),
  "resnet50": step_cost.Setup("resnet50", BF16, IMAGE, 128),
}
SIZES = {"mlp": (1, 8, 32, 128), "vit_s32": (8, 128)}  # of micro-batches
TINY = {"tiny": step_cost.Setup("mlp", {"hidden": (8,)}, (4, 4, 1), 8)}
# Largest errors that pass: relative to an array's largest entry, or 1 - cosine.
TRACES = {"highest": 1e-3, "default": 0.1}
SIGNAL, ANGLE, AGREEMENT = 2**-7, 0.05, 1e-4


class SkippedError(Exception):
  """A section that cannot be run here, and why."""


class Check:
  """What the sections share: the devices, the sizes and the time left."""

  def __init__(self, smoke: bool, minutes: float):
    self.smoke = smoke
    self.setups = TINY if smoke else SETUPS
    self.ends = time.monotonic() + 60 * minutes
    self.device = jax.devices()[0]
    self.images_per_second: dict[str, float] = {}

  def left(self) -> float:
    """Seconds."""
    return self.ends - time.monotonic()

  def in_time(self, items: Sequence[Any]) -> Iterator[Any]:
    """The items that there is time for, as long as the longest before took."""
    longest = 0.0
    for item in items[:1] if self.smoke else items:
      if self.left() < longest:
        return
      began = time.monotonic()
      yield item
      longest = max(longest, time.monotonic() - began)


def needs(*packages: str) -> None:
  """Skips a section where a package is missing."""
  if missing := [p for p in packages if importlib.util.find_spec(p) is None]:
    raise SkippedError(f"needs {', '.join(missing)}")


def contract(check: Check) -> Iterator[Row]:
  """Runs the transforms' tests on the device."""
  needs("pytest", "beartype")
  # The tests' own choice of device and flags is for CPUs.
  given = {"JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", "")}
  given["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "")
  for name in check.in_time(CONTRACT):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += [f"tests/perturbations/{name}.py", "-k", "sam" * check.smoke]
    try:
      done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        timeout=max(30.0, check.left()),
        check=False,
      )
    except subprocess.TimeoutExpired:
      yield {"tests": name, "result": "not done in time", "passes": None}
      continue
    lines = done.stdout.splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    result = "; ".join([*lines[-1:], *failed])
    yield {"tests": name, "result": result, "passes": not done.returncode}


def _relative(x: Any, reference: Any) -> float:
  x, reference = (np.asarray(v, np.float64) for v in (x, reference))
  return float(
    np.abs(x - reference).max() / max(np.abs(reference).max(), 1e-12)
  )


def signal(check: Check) -> Iterator[Row]:
  """Compares OBF in bfloat16 with float64 at the same logits, and gradients."""
  for classes in check.in_time([1000, 10]):
    logits = 4 * jax.random.normal(jax.random.key(0), (256, classes))
    labels = jnp.arange(256) % classes
    low = logits.astype(jnp.bfloat16)
    for activation in check.in_time(["sigmoid", "softmax"]):
      obf = fs.output_bias_forgetting(activation=activation)
      found = jax.jit(obf)(low, labels)
      with jax.enable_x64(True):
        exact = obf(np.asarray(low, np.float64), np.asarray(labels))
      error = _relative(found, exact)
      yield {
        "of": f"signal, {activation}, {classes} classes",
        "error": error,
        "passes": error <= SIGNAL,
      }
  for name in check.in_time(list(check.setups)):
    angle = 1 - _cosine(check.setups[name])
    passes = angle <= ANGLE
    yield {"of": f"gradient, {name}", "error": angle, "passes": passes}


def _cosine(setup: Any) -> float:
  """Between OBF's ascent gradients of bfloat16 and of float32 activations."""
  found = []
  for dtype in ("bfloat16", "float32"):
    options = {**setup.options, "dtype": dtype}
    module = fs.models.create(setup.model, num_classes=10, **options)
    forward: Any = fs.models.forward(module)
    batch = step_cost.batch_of(setup._replace(batch=32))
    params, rest = fs.models.initialise(module, jax.random.key(0), setup.image)
    logits_fn = functools.partial(_logits, forward, rest, batch["image"])
    ascend = fs.ascent_and_descent(
      logits_fn, step_cost.LOSS, fs.output_bias_forgetting()
    )
    with jax.default_matmul_precision("highest"):
      # A head of zeros would leave the other layers no gradient.
      moved = jax.tree.map(_moved, params)
      grads = jax.jit(lambda p, y, f=ascend: f(p, y)[0])(moved, batch["label"])
    leaves = [np.ravel(g).astype(np.float64) for g in jax.tree.leaves(grads)]
    found.append(np.concatenate(leaves))
  x, y = found
  return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))


def _moved(w: Any) -> Any:
  return w + 0.01 * jnp.cos(jnp.arange(w.size)).reshape(w.shape)


def _logits(forward: Any, rest: Any, images: Any, params: Any) -> Any:
  return forward(params, rest, images, train=False, key=jax.random.key(0))[0]


def traces(check: Check) -> Iterator[Row]:
  """Repeats the official runs."""
  from step_traces import CASES, deviations

  pairs = [(case, precision) for precision in TRACES for case in CASES]
  for case, precision in check.in_time(pairs):
    with jax.default_matmul_precision(precision):
      found = dict(deviations(case))
    what = max(found, key=lambda name: found[name])
    yield {
      "case": case,
      "precision": precision,
      "largest error": found[what],
      "of": what,
      "passes": found[what] <= TRACES[precision],
    }


def steps(check: Check) -> Iterator[Row]:
  """Measures plain, SAM and OBF steps."""
  kinds = step_cost.perturbs()
  for name in check.in_time(list(check.setups)):
    setup = check.setups[name]
    chosen = {
      f"{kind}, 1": step_cost.our_step(setup, *kinds[kind], 1)
      for kind in ("plain", "obf", *([] if check.smoke else ["sam"]))
    }
    rows = list(_measured(check, name, setup, chosen))
    check.images_per_second[name] = rows[0]["images per second"]
    yield from rows


def m_sharpness(check: Check) -> Iterator[Row]:
  """Measures SAM steps over the number m of examples that share a delta."""
  ways: dict[str, dict[str, str]] = {"loop": {}}
  if "m_sharpness" in inspect.signature(fs.make_train_step).parameters:
    ways = {way: {"m_sharpness": way} for way in ("loop", "factored")}
  sizes = {"tiny": (1,)} if check.smoke else SIZES
  _, sam = step_cost.perturbs()["sam"]
  for name in check.in_time(list(sizes)):
    setup = check.setups[name]._replace(batch=2 if check.smoke else 128)
    chosen = {"plain, 1": step_cost.our_step(setup, None, None, 1)} | {
      f"sam, m = {m}, {way}": step_cost.our_step(
        setup, None, sam, setup.batch // m, **options
      )
      for m in sizes[name]
      for way, options in ways.items()
    }
    yield from _measured(check, name, setup, chosen)
    if len(ways) > 1 and name != "vit_s32":  # in bfloat16, they are not close
      loop, factored = (
        _stepped(setup, sam, setup.batch // sizes[name][0], options)
        for options in ways.values()
      )
      error = max(map(_relative, factored, loop))
      label = f"m = {sizes[name][0]}, factored against loop"
      passes = error <= AGREEMENT
      yield {"model": name, "step": label, "error": error, "passes": passes}


def _stepped(setup: Any, perturb: Any, count: int, options: Any) -> Any:
  """The parameters after a step."""
  with jax.default_matmul_precision("highest"):
    step = step_cost.our_step(setup, None, perturb, count, **options)
    state = step.compile()(step.start(), step_cost.batch_of(setup))
  return jax.tree.leaves(jax.device_get(state.params))


def _measured(
  check: Check, name: str, setup: Any, chosen: dict[str, Any]
) -> Iterator[Row]:
  costs = step_cost.measure(chosen, setup, 1 if check.smoke else 5, 1)
  plain = np.median(costs["plain, 1"].seconds)
  for label in chosen:
    cost = costs[label]
    seconds = float(np.median(cost.seconds))
    yield {
      "model": name,
      "step": label.removesuffix(", 1"),
      "batch": setup.batch,
      "ms": 1e3 * seconds,
      "images per second": setup.batch / seconds,
      "time, of plain's": seconds / plain,
      "operations, of plain's": cost.flops / costs["plain, 1"].flops,
      "temporary MiB": cost.temporary / 2**20,
      "compile s": cost.compile_seconds[0],
      "passes": True,
    }


def input_pipeline(check: Check) -> Iterator[Row]:
  """Compares the pipeline's images with what plain steps consume."""
  needs("tensorflow", "tensorflow_datasets", "PIL")
  from benchmarks import input_pipeline as pipeline

  cores = len(os.sched_getaffinity(0))
  rng = np.random.default_rng(0)
  photos = [pipeline.photo(rng) for _ in range(4 if check.smoke else 64)]
  with tempfile.TemporaryDirectory() as folder:
    pipeline.prepare(photos, Path(folder))
    train = pipeline.train_split(Path(folder), cores)
    batches = 1 if check.smoke else 20
    seconds, cpu = pipeline.our_seconds(train, batches, 0)
  images = pipeline.BATCH * batches
  own = {"images per second": images / seconds, "per core": images / cpu}
  yield {"of": f"the pipeline, {cores} cores", **own, "passes": True}
  for name, taken in check.images_per_second.items():
    yield {
      "of": f"a plain step, {name}",
      "images per second": taken,
      "cores that feed it": taken * cpu / images,
      "passes": True,
    }


SECTIONS: dict[str, Callable[[Check], Iterator[Row]]] = {
  "signal": signal,
  "steps": steps,
  "m_sharpness": m_sharpness,
  "input": input_pipeline,
  "traces": traces,
  "contract": contract,
}


def run(check: Check, names: Sequence[str]) -> dict[str, Any]:
  """Runs sections; an error ends its own section alone."""
  found: dict[str, Any] = {}
  for name in names:
    rows: list[Row] = []
    note, passes = None, True
    try:
      if check.left() < 0:
        raise SkippedError("no time left")
      for row in SECTIONS[name](check):
        cells = (f"{k}: {_cell(v)} " for k, v in row.items())
        print(f"[{name}]", *cells, flush=True)
        rows.append(row)
    except SkippedError as reason:
      note = f"skipped: {reason}"
    except Exception as error:  # the device's own, such as too little memory
      note, passes = f"{type(error).__name__}: {str(error)[:300]}", False
    if note:
      print(f"[{name}] {note}", flush=True)
    passes &= all(row["passes"] in (True, None) for row in rows)
    found[name] = {"passes": passes, "note": note, "rows": rows}
  return found


def _cell(value: Any) -> str:
  return f"{value:.3g}" if isinstance(value, float) else str(value)


def markdown(facts: dict[str, Any]) -> str:
  """The page of all that was found."""
  versions = ", ".join(f"{k} {v}" for k, v in facts["versions"].items())
  parts = [f"# {facts['device']}\n\n{facts['date']}, {versions}\n"]
  for name, section in facts["sections"].items():
    verdict = "passes" if section["passes"] else "fails"
    note = f" ({section['note']})" if section["note"] else ""
    parts.append(f"\n## {name}: {verdict}{note}\n")
    if rows := section["rows"]:
      keys = list(dict.fromkeys(key for row in rows for key in row))
      lines = [keys, ["---"] * len(keys)]
      lines += [[_cell(row.get(key, "")) for key in keys] for row in rows]
      table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
      parts.append(f"\n{table}\n")
  return "".join(parts)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the sections, writes both files, and returns the exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--output", type=Path, default=Path())
  parser.add_argument("--minutes", type=float, default=5.0)
  parser.add_argument("--sections", default=",".join(SECTIONS))
  parser.add_argument("--smoke", action="store_true")
  options = parser.parse_args(argv)
  names = options.sections.split(",")
  if unknown := set(names) - set(SECTIONS):
    parser.error(
      f"--sections: {', '.join(unknown)}; known: {', '.join(SECTIONS)}"
    )
  check = Check(options.smoke, options.minutes)
  print(f"{check.device.device_kind}, {check.device.platform}", flush=True)
  facts = {
    "device": f"{check.device.device_kind} ({check.device.platform})",
    "date": time.strftime("%Y-%m-%d"),
    "versions": {m.__name__: m.__version__ for m in (jax, optax, np)},
    "sections": run(check, names),
    "memory": check.device.memory_stats() or {},
  }
  options.output.mkdir(parents=True, exist_ok=True)
  page = options.output / "accelerator"
  page.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")
  page.with_suffix(".md").write_text(markdown(facts))
  return int(not all(x["passes"] for x in facts["sections"].values()))


if __name__ == "__main__":
  jax.config.update("jax_enable_compilation_cache", False)
  sys.exit(main())
