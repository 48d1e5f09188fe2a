"""The official runs of five steps, and how far this project's lie off."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from torch_layout import convbn, mlp, split_state

import forgetsam as fs

GOLDEN = np.load(Path(__file__).parent / "golden" / "step_traces.npz")
CASES = sorted({name.split("/")[0] for name in GOLDEN.files})


def entries(prefix):
  return {
    name.removeprefix(prefix): jnp.asarray(GOLDEN[name])
    for name in GOLDEN.files
    if name.startswith(prefix)
  }


def compare(
  actual: dict[str, Any], expected: dict[str, Any], what: str
) -> Iterator[tuple[str, float]]:
  """The largest difference in each array, relative to its largest entry."""
  assert actual.keys() == expected.keys()
  for name, reference in expected.items():
    scale = max(np.abs(reference).max(), 1e-12)
    error = np.abs(np.asarray(actual[name]) - reference).max() / scale
    yield f"{what} {name}", float(error)


def record_gradient():
  """Keeps what reaches the optimizer, to be compared."""
  return optax.GradientTransformation(
    lambda params: {"recorded": jax.tree.map(jnp.zeros_like, params)},
    lambda grads, state, params=None: (grads, {"recorded": grads}),
  )


def learning_rate(meta):
  return optax.join_schedules(
    [
      optax.linear_schedule(0.0, meta["lr"], meta["warmup"]),
      optax.linear_schedule(
        meta["lr"], meta["min_lr"], meta["t_total"] - meta["warmup"]
      ),
    ],
    [meta["warmup"]],
  )


def radius(meta, lr):
  if meta["rho_policy"] == "constant":
    return meta["rho"]
  return fs.lr_proportional_rho(
    lr, meta["rho"], meta["min_rho"], meta["lr"], meta["min_lr"]
  )


def make_optimizer(meta, lr):

  def decayed(params):
    return jax.tree.map(lambda w: w.ndim > 1, params)

  pieces = [record_gradient()]
  if "clip" in meta:
    pieces.append(optax.clip_by_global_norm(meta["clip"]))
  if meta["opt"] == "adamw":
    pieces.append(optax.adamw(lr, weight_decay=meta["wd"], mask=decayed))
  else:
    momentum = meta.get("momentum", 0.9)
    pieces.append(fs.sgdw(lr, momentum, meta["wd"], mask=decayed))
  if "snp" in meta:
    pieces.append(
      fs.shrink_and_perturb(lambda n: meta["snp"] * lr(n) / meta["lr"])
    )
  return optax.chain(*pieces)


def make_perturb(meta, lr):
  if meta["method"] == "plain":
    return {}
  rho = radius(meta, lr)
  if meta.get("adaptive"):
    before, after = meta.get("before"), meta.get("after")
    magnitude = "both" if before and after else "before" if before else "after"
    perturbation = fs.asam(rho, magnitude=magnitude)
  else:
    perturbation = fs.sam(rho)
  combine = None
  if "gsam_alpha" in meta:
    combine = fs.surrogate_gap(
      meta["gsam_alpha"], meta.get("backup_normalized", False)
    )
  ascent = None
  if meta["ascent"] == "obf":
    ascent = fs.output_bias_forgetting(
      1 / meta["C"],
      meta["gamma"],
      "sigmoid" if meta.get("sigmoid", True) else "softmax",
    )
  return {
    "perturb": fs.perturbed_gradient(perturbation, combine),
    "ascent": ascent,
  }


def make_loss(meta):
  losses = {"bce": fs.sigmoid_cross_entropy, "ce": fs.softmax_cross_entropy}
  return losses[meta["loss"]](meta.get("smoothing", 0.0))


def deviations(case: str) -> Iterator[tuple[str, float]]:
  """Takes a run's steps; says what was compared, and how far it is off."""
  meta = json.loads(str(GOLDEN[f"{case}/meta"]))
  lr = learning_rate(meta)
  params, running = split_state(entries(f"{case}/init/"))
  optimizer, perturb = make_optimizer(meta, lr), make_perturb(meta, lr)
  step = fs.make_train_step(
    mlp if meta["model"] == "mlp" else convbn,
    loss=make_loss(meta),
    optimizer=optimizer,
    micro_batch_size=meta["m"] if perturb or meta["model"] == "mlp" else None,
    **perturb,
  )
  state = fs.create_train_state(
    params, running, optimizer, perturb.get("perturb")
  )
  for t in range(meta["steps"]):
    schedules = {"lr": lr(t)}
    if perturb:
      rho = radius(meta, lr)
      schedules["rho"] = rho(t) if callable(rho) else rho
    wanted = {name: GOLDEN[f"{case}/{name}/{t}"] for name in schedules}
    yield from compare(schedules, wanted, f"step {t} schedule")
    batch = {
      "image": jnp.asarray(GOLDEN[f"{case}/x/{t}"]),
      "label": jnp.asarray(GOLDEN[f"{case}/y/{t}"]),
    }
    state, metrics = step(state, batch, jax.random.key(0))
    assert metrics["skipped"] == 0
    recorded = optax.tree.get(state.opt_state, "recorded")
    wanted = entries(f"{case}/grad/{t}/")
    yield from compare(recorded, wanted, f"step {t} gradient")
    expected, statistics = split_state(entries(f"{case}/state/{t}/"))
    if "snp" in meta:
      # The official loop shrinks at the start of the next step.
      f = meta["snp"] * lr(t + 1) / meta["lr"]
      expected = {k: f * params[k] + (1 - f) * w for k, w in expected.items()}
    yield from compare(state.params, expected, f"step {t} state")
    yield from compare(state.model_state, statistics, f"step {t} statistics")
