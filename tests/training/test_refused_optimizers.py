"""Optimizers that a step cannot run, and those that it can."""

import jax
import jax.numpy as jnp
import optax
import pytest

import forgetsam as fs
from forgetsam.training._train_state import check_transforms

PARAMS = {"w": jnp.ones((3, 2))}
BATCH = {"image": jnp.ones((4, 3)), "label": jnp.arange(4) % 2}


def forward(params, model_state, images, *, train, key):
  return images @ params["w"], model_state


def make(optimizer, perturb=None):
  return fs.make_train_step(
    forward,
    loss=fs.softmax_cross_entropy(),
    optimizer=optimizer,
    perturb=perturb,
  )


def contrib_sam(**options):
  return optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.1), **options)


REFUSED = {
  "sam": (contrib_sam(), r"contrib\.sam.*perturb=perturbed_gradient\(sam\(rho"),
  "opaque sam": (contrib_sam(opaque_mode=True), r"contrib\.sam.*perturb="),
  "lbfgs": (optax.lbfgs(), r"value_fn.*linesearch=None"),
  "line search": (
    optax.chain(optax.sgd(0.1), optax.scale_by_backtracking_linesearch(3)),
    r"line search.*value_fn.*linesearch=None",
  ),
  "sophia": (optax.contrib.sophia(0.1), "sophia.*obj_fn.*another optimizer"),
  "lookahead": (
    optax.lookahead(optax.sgd(0.1), 2, 0.5),
    "lookahead.*that it wraps",
  ),
  "perturbed": (
    optax.chain(fs.perturbed_gradient(fs.sam(0.1)), optax.sgd(0.1)),
    "pass it as perturb",
  ),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize(
  "wrap", [lambda o: o, lambda o: optax.chain(optax.clip(1.0), o)]
)
def test_what_needs_more_than_a_step_has_is_refused(name, wrap):
  optimizer, remedy = REFUSED[name]
  optimizer = wrap(optimizer)
  with pytest.raises(ValueError, match=f"optimizer.*{remedy}"):
    fs.create_train_state(PARAMS, {}, optimizer)
  # ... and by the step, of a state that was made by hand.
  state = fs.create_train_state(PARAMS, {}, optax.sgd(0.1))
  state = state.replace(opt_state=optimizer.init(PARAMS))
  with pytest.raises(ValueError, match=f"optimizer.*{remedy}"):
    make(optimizer)(state, BATCH, jax.random.key(0))


def custom(update):
  return optax.GradientTransformationExtraArgs(lambda _: (), update)


@pytest.mark.parametrize(
  ("update", "named"),
  [
    (lambda g, s, p=None, *, epoch, **extra: (g, s), "epoch"),
    (lambda g, s, p=None: (g, s), "value"),
  ],
)
def test_arguments_that_a_step_does_not_pass_are_named(update, named):
  optimizer = custom(update)
  state = fs.create_train_state(PARAMS, {}, optimizer)
  with pytest.raises(
    ValueError, match=rf"optimizer takes other.*'{named}'.*\*\*extra"
  ):
    make(optimizer)(state, BATCH, jax.random.key(0))


def test_a_type_error_of_the_optimizers_own_passes():
  optimizer = custom(lambda g, s, p=None, **extra: g + 1)
  state = fs.create_train_state(PARAMS, {}, optimizer)
  with pytest.raises(TypeError, match="unsupported operand"):
    make(optimizer)(state, BATCH, jax.random.key(0))


@pytest.mark.parametrize("name", ["optimizer", "perturb"])
def test_what_is_no_transform_is_refused(name):
  # Directly: the run-time type checks of the tests would refuse it earlier.
  arguments = {"optimizer": optax.sgd(0.1), "perturb": None, name: fs.sgdw}
  with pytest.raises(ValueError, match=f"{name}=.*must be an optax transform"):
    check_transforms(**arguments)


def test_shapes_without_values_are_refused():
  shapes = jax.eval_shape(lambda: PARAMS)
  with pytest.raises(ValueError, match=r"params\['w'\] is a shape.*eval_shape"):
    fs.create_train_state(shapes, {}, optax.sgd(0.1))
  # The remedy.
  state = jax.eval_shape(
    lambda p: fs.create_train_state(p, {}, optax.sgd(0.1)), shapes
  )
  assert state.params["w"].shape == (3, 2)


@pytest.mark.parametrize("leaf", [jnp.arange(3), True, jax.random.key(0)])
def test_params_without_a_gradient_are_refused(leaf):
  with pytest.raises(ValueError, match=r"\['n'\] is .*into model_state"):
    fs.create_train_state(PARAMS | {"n": leaf}, {}, optax.sgd(0.1))


RUNS = {
  "lbfgs": optax.lbfgs(0.1, linesearch=None),
  "polyak": optax.polyak_sgd(),
  "plateau": optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau()),
  "schedule_free": optax.contrib.schedule_free_sgd(0.1),
  "multi_steps": optax.MultiSteps(optax.sgd(0.1), 1).gradient_transformation(),
}


@pytest.mark.parametrize("name", RUNS)
def test_what_value_alone_serves_is_not_refused(name):
  optimizer, perturb = RUNS[name], fs.perturbed_gradient(fs.sam(0.1))
  state = fs.create_train_state(PARAMS, {}, optimizer, perturb)
  after, _ = jax.eval_shape(
    make(optimizer, perturb), state, BATCH, jax.random.key(0)
  )
  assert jax.tree.structure(after) == jax.tree.structure(state)
