"""Parameters that do not train: no gradient, no update, no state, no delta."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import forgetsam as fs
from forgetsam.experiment import base_config
from forgetsam.experiment import build as builders
from forgetsam.experiment.build._trained import build_trained, freeze_others
from forgetsam.experiment.config import ConfigError

PARAMS = {
  "block1": {"kernel": jnp.array([[1.0, 2.0]]), "bias": jnp.array([0.5])},
  "block10": {"kernel": jnp.array([[3.0, -1.0]])},
  "norm": {"scale": jnp.array([2.0])},
}


def config_of(**changes: Any) -> Any:
  config = base_config()
  config.update_from_flattened_dict(
    {key.replace("__", "."): value for key, value in changes.items()}
  )
  return config


def chosen(expressions: str) -> set[str]:
  config = config_of(optimizer__train_only=expressions)
  marks = build_trained(config)(PARAMS)
  found = jax.tree_util.tree_leaves_with_path(marks)
  keystr = jax.tree_util.keystr
  return {keystr(p, simple=True, separator="/") for p, mark in found if mark}


@pytest.mark.parametrize(
  ("expressions", "expected"),
  [
    ("block1", {"block1/kernel", "block1/bias"}),
    ("block10,norm/scale", {"block10/kernel", "norm/scale"}),
    ("block1.*", {"block1/kernel", "block1/bias", "block10/kernel"}),
    (".*/(bias|scale)", {"block1/bias", "norm/scale"}),
    ("norm|block10", {"block10/kernel", "norm/scale"}),
  ],
)
def test_expressions_match_from_the_start_to_a_slash_or_the_end(
  expressions: str, expected: set[str]
):
  assert chosen(expressions) == expected


@pytest.mark.parametrize("expressions", ["block1,head", "ernel", "block"])
def test_what_matches_nothing_is_refused_with_the_paths(expressions: str):
  last = expressions.rpartition(",")[2]
  with pytest.raises(
    ConfigError,
    match=rf"train_only='{expressions}'[\s\S]*'{last}'.*block1/bias, block1/",
  ):
    chosen(expressions)


CHAIN = {
  "optimizer__weight_decay": 0.1,
  "optimizer__shrink_and_perturb": 0.1,
  "optimizer__clip": 1.0,
  "optimizer__ema": 0.5,
}


def test_the_others_have_neither_updates_nor_state():
  config = config_of(optimizer__train_only="norm,block1/bias", **CHAIN)
  optimizer = builders.build_optimizer(config, optax.constant_schedule(0.1))
  alone = builders.build_optimizer(
    config_of(**CHAIN), optax.constant_schedule(0.1)
  )
  part = {"block1": {"bias": PARAMS["block1"]["bias"]}, "norm": PARAMS["norm"]}
  state, part_state = optimizer.init(PARAMS), alone.init(part)
  assert [x.shape for x in jax.tree.leaves(state)] == [
    x.shape for x in jax.tree.leaves(part_state)
  ]
  grads = jax.tree.map(lambda x: x + 1, PARAMS)
  updates, state = optimizer.update(grads, state, PARAMS)
  expected, part_state = alone.update(
    jax.tree.map(lambda x: x + 1, part), part_state, part
  )
  # Of the trained alone: clipping by the norm as well.
  np.testing.assert_allclose(
    updates["norm"]["scale"], expected["norm"]["scale"]
  )
  np.testing.assert_allclose(
    updates["block1"]["bias"], expected["block1"]["bias"]
  )
  frozen = (updates["block1"]["kernel"], updates["block10"]["kernel"])
  assert not any(x.any() for x in frozen)
  ema = fs.averaged_params(PARAMS, state)
  np.testing.assert_array_equal(
    ema["block10"]["kernel"], PARAMS["block10"]["kernel"]
  )


@pytest.mark.parametrize("name", ["sam", "asam", "random", "momentum"])
def test_the_perturbation_leaves_the_others_alone(name: str):
  config = config_of(
    perturbation__name=name, optimizer__train_only="block1,norm"
  )
  perturb = builders.build_perturb(config, optax.constant_schedule(0.3), 0, 9)
  optimizer = builders.build_optimizer(config, optax.constant_schedule(0.1))
  grads = jax.tree.map(lambda x: x + 1, PARAMS)
  _, opt_state = optimizer.update(grads, optimizer.init(PARAMS), PARAMS)
  assert perturb is not None
  perturb = optax.with_extra_args_support(perturb)
  moved, _ = perturb.update(
    grads,
    perturb.init(PARAMS),
    PARAMS,
    grad_fn=lambda p: p,
    opt_state=opt_state,
  )
  delta = jax.tree.map(jnp.subtract, moved, PARAMS)
  assert not delta["block10"]["kernel"].any()
  if name != "asam":
    squares = [np.sum(np.square(d)) for d in jax.tree.leaves(delta)]
    np.testing.assert_allclose(np.sqrt(sum(squares)), 0.3, rtol=1e-5)


def test_norm_layers_that_do_not_train_leave_nothing_to_perturb():
  def move(train_only: str) -> Any:
    config = config_of(
      perturbation__name="sam",
      perturbation__layers="norm",
      optimizer__train_only=train_only,
    )
    perturb = builders.build_perturb(config, optax.constant_schedule(0.3), 0, 9)
    assert perturb is not None
    grads, state = jax.tree.map(jnp.ones_like, PARAMS), perturb.init(PARAMS)
    moved, _ = perturb.update(grads, state, PARAMS, grad_fn=lambda p: p)
    return [
      bool((x != y).any())
      for x, y in zip(
        jax.tree.leaves(moved), jax.tree.leaves(PARAMS), strict=True
      )
    ]

  assert move("block1,norm") == [False, False, False, True]
  with pytest.raises(ConfigError, match=r"layers='norm'[\s\S]*train_only='blo"):
    move("block1")


def test_the_model_has_no_gradient_of_the_others():
  def forward(params: Any, state: Any, x: Any, *, train: bool, key: Any) -> Any:
    return sum(jnp.sum(w) * x for w in jax.tree.leaves(params)), state

  frozen = freeze_others(forward, config_of(optimizer__train_only="norm"))
  grads = jax.grad(lambda p: frozen(p, {}, 3.0, train=True, key=None)[0])(
    PARAMS
  )
  assert [float(x.sum()) for x in jax.tree.leaves(grads)] == [0, 0, 0, 3.0]
  assert freeze_others(forward, config_of()) is forward
