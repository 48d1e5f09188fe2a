"""Seven steps of published methods, and how far this project's lie off.

`tests/golden/peer_traces.npz` has them as the authors' code takes them, in
float64; `tests/golden/peers.md` says what it holds.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

GOLDEN = np.load(Path(__file__).parent / "golden" / "peer_traces.npz")
CASES = GOLDEN["meta/cases"].tolist()
NUM_STEPS = 7
LAYER_NORM_EPS = 1e-5


class Case:
  """A method's steps: `case["rho"]` is one of its hyper-parameters."""

  def __init__(self, name: str, golden: Any = GOLDEN):
    self.name, self.golden = name, golden
    self.hyper = json.loads(str(golden[f"{name}/hyper"]))
    self.base = json.loads(str(golden["meta/base"]))
    of_ln = name in golden["meta/ln_cases"]
    self.order = golden["meta/order_ln" if of_ln else "meta/order"].tolist()
    init = "init_ln" if of_ln else "init"
    self.params = {n: jnp.asarray(golden[f"{init}/{n}"]) for n in self.order}

  def __getitem__(self, name: str) -> Any:
    return self.hyper[name]

  def array(self, name: str) -> np.ndarray:
    return self.golden[f"{self.name}/{name}"]

  def tree(self, flat: Any) -> dict[str, Any]:
    """A tree like params, of entries `[..., n]` in the file's order."""
    sizes = [self.params[n].size for n in self.order]
    parts = np.split(flat, np.cumsum(sizes)[:-1], axis=-1)
    return {
      n: jnp.asarray(part.reshape(*flat.shape[:-1], *self.params[n].shape))
      for n, part in zip(self.order, parts, strict=True)
    }

  def flat(self, tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(tree[n]) for n in self.order])

  def batch(self, t: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and labels of step t, from 1; of the first, where t is less."""
    t = max(t, 1)
    return self.golden["data/x"][t - 1], self.golden["data/y"][t - 1]

  def sgd(self) -> optax.GradientTransformation:
    """The base optimizer, which records the gradients that reach it."""
    return optax.chain(
      record(), optax.sgd(self.base["lr"], self.base["momentum"])
    )


def record() -> optax.GradientTransformation:
  return optax.GradientTransformation(
    lambda params: {"recorded": jax.tree.map(jnp.zeros_like, params)},
    lambda grads, state, params=None: (grads, {"recorded": grads}),
  )


def logits(params: Any, x: Any) -> Any:
  z = x @ params["layer1.weight"].T + params["layer1.bias"]
  if "norm1.weight" in params:
    z = z - jnp.mean(z, 1, keepdims=True)
    z = z / jnp.sqrt(jnp.mean(z**2, 1, keepdims=True) + LAYER_NORM_EPS)
    z = z * params["norm1.weight"] + params["norm1.bias"]
  for name in ("layer2", "layer3"):
    z = jnp.tanh(z) @ params[f"{name}.weight"].T + params[f"{name}.bias"]
  return z


def losses(params: Any, x: Any, y: Any) -> Any:
  return optax.softmax_cross_entropy_with_integer_labels(logits(params, x), y)


def arguments(x: Any, y: Any) -> dict[str, Callable[[Any], Any]]:
  """The functions of a batch that a step passes on to a transform."""
  value_and_grad_fn = jax.value_and_grad(lambda p: jnp.mean(losses(p, x, y)))
  grad_fn = lambda p: value_and_grad_fn(p)[1]  # noqa: E731
  return {
    "grad_fn": grad_fn,
    "value_and_grad_fn": value_and_grad_fn,
    "ascent_fn": grad_fn,
    "losses_fn": lambda p: losses(p, x, y),
  }


def step_of_own(
  case: Case,
  transform: optax.GradientTransformation,
  optimizer: optax.GradientTransformation,
  micro_batches: int,
) -> tuple[Any, Any]:
  """A loop of one's own: its first state, and its jitted step."""
  transform = optax.with_extra_args_support(transform)
  optimizer = optax.with_extra_args_support(optimizer)

  @jax.jit
  def step(state: Any, batch: Any, before: Any) -> Any:
    params, perturb_state, opt_state = state

    def on_part(i: int) -> Any:
      now, past = (
        arguments(*(a.reshape(micro_batches, -1, *a.shape[1:])[i] for a in b))
        for b in (batch, before)
      )
      loss, clean = now["value_and_grad_fn"](params)
      grads, new = transform.update(
        *(clean, perturb_state, params),
        **now,
        previous_value_and_grad_fn=past["value_and_grad_fn"],
        micro_batch=i,
        opt_state=opt_state,
      )
      return grads, new, {"value": loss, "clean_grads": clean}

    parts = [on_part(i) for i in range(micro_batches)]
    grads, new, extra = jax.tree.map(mean_of_floats, *parts)
    updates, opt_state = optimizer.update(grads, opt_state, params, **extra)
    return optax.apply_updates(params, updates), new, opt_state

  params = case.params
  return (params, transform.init(params), optimizer.init(params)), step


def mean_of_floats(first: Any, *others: Any) -> Any:
  if not jnp.issubdtype(first.dtype, jnp.inexact):
    return first
  return (first + sum(others)) / (1 + len(others)) if others else first


def run(
  case: Case,
  transform: optax.GradientTransformation,
  optimizer: optax.GradientTransformation | None = None,
  micro_batches: int = 1,
) -> float:
  """Takes a case's steps in a loop of one's own.

  Args:
    case: whose data, first weights and results they are.
    transform: from ascent to descent gradients, first in the chain.
    optimizer: what follows; `None` is the case's SGD. One that holds `record`
      has the gradients that reached it compared, too.
    micro_batches: equal parts of a batch that have an offset of their own; the
      optimizer sees the gradients' mean.

  Returns:
    The largest difference of the last parameters and the recorded gradients.
  """
  optimizer = optimizer or case.sgd()
  state, step = step_of_own(case, transform, optimizer, micro_batches)
  differences = [0.0]
  compared = case.golden["meta/grad_steps"].tolist()
  for t in range(1, NUM_STEPS + 1):
    state = step(state, case.batch(t), case.batch(t - 1))
    found = optax.tree.get_all_with_path(state[2], "recorded")
    if found and t in compared:
      wanted = case.array("grad_flat")[compared.index(t)]
      differences.append(np.abs(case.flat(found[0][1]) - wanted).max())
  for name, w in state[0].items():
    wanted = case.array(f"params/{NUM_STEPS}/{name}")
    differences.append(np.abs(w - wanted).max())
  return float(np.max(differences))
