"""The loops of other libraries take the step that plain JAX takes."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from markdown_pages import ROOT, python_blocks

PAGE = ROOT / "docs" / "foreign_loops.md"
PATHS = os.pathsep.join(map(str, (ROOT, *Path(__file__).parents[:2])))
RHO, RATE = 0.05, 0.1


def run(blocks: list[str]) -> dict[str, Any]:
  namespace: dict[str, Any] = {}
  for block in blocks:
    exec(compile(block, str(PAGE), "exec"), namespace)
  return namespace


def is_keras(block: str) -> bool:
  return "import jax, jax.numpy as jnp, keras" in block


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
  return run([b for b in python_blocks(PAGE) if not is_keras(b)])


def perturbed(
  logits_fn: Callable[[Any], jax.Array], params: Any, page: dict[str, Any]
) -> Any:
  """The gradient of the loss at params + delta, by the definition."""
  logits, pullback = jax.vjp(logits_fn, params)
  (ascent,) = pullback(page["signal"](logits, page["labels"]))
  scale = RHO / optax.tree.norm(ascent)
  moved = jax.tree.map(lambda w, g: w + scale * g, params, ascent)
  return jax.grad(lambda p: page["loss"](logits_fn(p), page["labels"]))(moved)


def assert_stepped(before: Any, after: Any, grads: Any) -> None:
  leaves = zip(*map(jax.tree.leaves, (before, after, grads)), strict=True)
  for old, new, grad in leaves:
    np.testing.assert_allclose(new, old - RATE * grad, atol=1e-6)
  assert optax.tree.norm(grads) > 0.1


def test_flax_train_state(page: dict[str, Any]):
  params, model = page["params"], page["model"]
  grads = perturbed(lambda p: model.apply(p, page["images"]), params, page)
  assert_stepped(params, page["state"].params, grads)
  assert page["state"].step == 1
  np.testing.assert_allclose(
    page["state"].perturb_state.perturbation_norm, RHO, rtol=1e-5
  )


def test_pmap_perturbs_each_share(page: dict[str, Any]):
  params, model = page["params"], page["model"]
  shares = zip(
    page["split"](page["images"]), page["split"](page["labels"]), strict=True
  )
  grads = [
    perturbed(
      lambda p, images=images: model.apply(p, images),
      *(params, page | {"labels": labels}),
    )
    for images, labels in shares
  ]
  assert len(grads) == jax.device_count()
  mean = jax.tree.map(lambda *each: sum(each) / len(each), *grads)
  for device in range(len(grads)):
    assert_stepped(
      params, jax.tree.map(lambda x, i=device: x[i], page["many"]), mean
    )


def test_nnx_draws_one_mask_and_advances_once(page: dict[str, Any]):
  fresh, net = page["Mlp"](nnx.Rngs(0)), page["net"]
  graph, params, rest = nnx.split(fresh, nnx.Param, ...)
  params = nnx.as_pure(params)
  grads = perturbed(
    lambda p: nnx.merge(graph, p, rest, copy=True)(page["images"]),
    *(params, page),
  )
  assert_stepped(params, nnx.as_pure(nnx.state(net, nnx.Param)), grads)
  fresh(page["images"])
  expected = jax.tree.leaves(nnx.state(fresh, (nnx.BatchStat, nnx.RngCount)))
  found = jax.tree.leaves(nnx.state(net, (nnx.BatchStat, nnx.RngCount)))
  for one, other in zip(found, expected, strict=True):
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_equinox(page: dict[str, Any]):
  combine = page["eqx"].combine

  def logits_fn(weights: Any) -> jax.Array:
    return jax.vmap(combine(weights, page["static"]))(page["images"])

  grads = perturbed(logits_fn, page["weights"], page)
  assert_stepped(page["weights"], page["trained"], grads)


def test_haiku(page: dict[str, Any]):
  net, images = page["hk_net"], page["images"]
  _, state = net.init(jax.random.key(3), images, True)

  def logits_fn(params: Any) -> jax.Array:
    return net.apply(params, state, None, images, True)[0]

  grads = perturbed(logits_fn, page["hk_params"], page)
  assert_stepped(page["hk_params"], page["hk_trained"], grads)
  counters = [x for x in jax.tree.leaves(page["hk_state"]) if x.ndim == 0]
  assert counters == [1, 1]


@pytest.mark.slow
def test_keras():
  """In a process of its own: TensorFlow's import settles Keras's backend."""
  subprocess.run(
    [sys.executable, "-c", "from test_foreign_loops import keras; keras()"],
    env=os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": PATHS},
    check=True,
  )


def keras() -> None:
  page = run([b for b in python_blocks(PAGE) if is_keras(b)])

  def logits_fn(params: Any) -> jax.Array:
    return page["model"].stateless_call(params, [], page["images"])[0]

  grads = perturbed(logits_fn, page["params"], page)
  assert_stepped(page["params"], page["trained"], grads)
  found = [v.value for v in page["model"].trainable_variables]
  assert_stepped(page["params"], found, grads)


def test_an_update_function_that_takes_value_and_grad(page: dict[str, Any]):
  model, loss, params = page["model"], page["loss"], page["params"]
  both = page["perturbed_value_and_grad"](
    lambda p, images, labels: loss(model.apply(p, images), labels),
    page["perturb"],
  )
  value, found = both(params, page["images"], page["labels"])
  logits = model.apply(params, page["images"])
  np.testing.assert_allclose(value, loss(logits, page["labels"]), rtol=1e-6)
  expected = perturbed(
    lambda p: model.apply(p, page["images"]),
    *(params, page | {"signal": page["fs"].loss_ascent(loss)}),
  )
  leaves = zip(*map(jax.tree.leaves, (found, expected)), strict=True)
  for one, other in leaves:
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_two_counts_are_told_apart(page: dict[str, Any]):
  with pytest.raises(KeyError, match="multiple values"):
    optax.tree.get(page["opt_state"], "count")
  assert page["count"] == jnp.zeros((), jnp.int32)
