"""The state that a training run carries from step to step."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import Mesh
from jaxtyping import Array

from forgetsam._checks import check_transform
from forgetsam._optimizers import averaged_params
from forgetsam._typing import PyTree
from forgetsam.perturbations import PerturbedGradientState
from forgetsam.training._mesh import (
  check_mesh,
  has_more_axes,
  place,
  replicated,
  spread,
)
from forgetsam.training._sharding import (
  as_shardings,
  divide_over_data,
  param_shardings,
  shardings_like,
  unboxed,
)


class TrainState(struct.PyTreeNode):
  """Everything that a training step reads and writes; a pytree.

  Attributes:
    step: the number of updates made.
    params: the model's parameters.
    model_state: what else the model carries, such as running statistics.
    opt_state: the optimizer's state.
    perturb_state: the perturbed gradient's state; empty in plain training.
  """

  step: Any  # an int32 scalar, or what stands for it while tracing
  params: PyTree
  model_state: PyTree
  opt_state: Any
  perturb_state: Any

  @property
  def ema(self) -> PyTree | None:
    """The parameters' average, where the optimizer has a `params_ema`."""
    return averaged_params(self.params, self.opt_state)


def create_train_state(
  params: PyTree,
  model_state: PyTree,
  optimizer: optax.GradientTransformation,
  perturb: optax.GradientTransformation | None = None,
  mesh: Mesh | None = None,
  *,
  shardings: PyTree | None = None,
  shard_opt_state: bool = False,
) -> TrainState:
  """Makes the first state of a run, in buffers of its own.

  A step that donates the state leaves the caller's arrays alone.

  Args:
    params: the model's parameters, a pytree of arrays.
    model_state: what else the model carries, `{}` if nothing.
    optimizer: any optax optimizer.
    perturb: a `perturbed_gradient`, or `None` for plain training.
    mesh: where to place the state, as in `make_train_step`; `None` for the
      default device. On one with the axis "data" alone it is replicated.
    shardings: on a mesh with more axes, where each parameter lies: a tree of
      `NamedSharding` or `PartitionSpec`, such as those that `param_shardings`
      makes, and `None` its default. The optimizer's and the perturbation's
      arrays lie as the parameters they belong to, and Linen's boxes are left
      out of the state.
    shard_opt_state: whether each device of the mesh holds a part of the
      optimizer's state instead of all of it; as in `make_train_step`.

  Raises:
    ValueError: `optimizer` is no optax transform, or contains a
      `perturbed_gradient`, optax's own SAM or a line search; params hold
      shapes without values, or integers; the mesh has no axis "data", or
      there is none to shard over; shardings do not fit.

  Example:
    >>> state = create_train_state({"w": jnp.ones(2)}, {}, optax.sgd(0.1))
    >>> int(state.step)
    0
  """
  check_mesh(mesh, shard=shard_opt_state)
  check_transforms(optimizer, perturb)
  _check_arrays(params)
  where = None
  if has_more_axes(mesh):
    where = param_shardings(params, mesh)
    params = unboxed(params)
    if shardings is not None:
      where = as_shardings(shardings, params, mesh)
    params = _place(params, where)  # before the optimizer makes more of them
  elif shardings is not None:
    raise ValueError(
      'shardings are given, and no mesh that has more axes than "data" to '
      "divide parameters over: pass the mesh that they are of"
    )
  state = TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    model_state=model_state,
    opt_state=optimizer.init(params),
    perturb_state=optax.EmptyState()
    if perturb is None
    else perturb.init(params),
  )
  check_opt_state(state.opt_state)
  state = jax.tree.map(_own, state)
  if mesh is None:
    return state
  whole = jax.tree.map(lambda _: replicated(mesh), state)
  if where is not None:
    opt_state = shardings_like(state.opt_state, params, where, mesh)
    if shard_opt_state:
      opt_state = divide_over_data(state.opt_state, opt_state, mesh)
    perturb_state = shardings_like(state.perturb_state, params, where, mesh)
    return _place(
      state,
      whole.replace(
        params=where, opt_state=opt_state, perturb_state=perturb_state
      ),
    )
  if shard_opt_state:
    whole = whole.replace(opt_state=spread(mesh, state.opt_state))
  return place(state, whole)


_LINE_SEARCH = (
  "contains a line search, as optax.lbfgs does, which needs grad and value_fn, "
  "and a step evaluates no loss along a line: pass "
  "optax.lbfgs(learning_rate, linesearch=None), or another optimizer"
)
# States of transforms that a step cannot run, and what to do instead.
_REFUSED: dict[type, str] = {
  PerturbedGradientState: (
    "contains a perturbed_gradient: pass it as perturb, so that each "
    "micro-batch gets a perturbation of its own"
  ),
  optax.contrib.SAMState: (
    "contains optax.contrib.sam, which perturbs in some steps and descends in "
    "others, on other batches: pass the optimizer that it wraps, and "
    "perturb=perturbed_gradient(sam(rho))"
  ),
  optax.ScaleByZoomLinesearchState: _LINE_SEARCH,
  optax.ScaleByBacktrackingLinesearchState: _LINE_SEARCH,
  optax.LookaheadState: (
    "contains optax.lookahead, which needs two sets of weights "
    "(LookaheadParams): pass the optimizer that it wraps"
  ),
  optax.contrib.HutchinsonState: (
    "estimates the Hessian, as optax.contrib.sophia does, which needs obj_fn, "
    "and a step passes none: pass another optimizer"
  ),
}


def check_transforms(optimizer: Any, perturb: Any) -> None:
  """Raises a `ValueError` for what is no optax transform, as yet uncalled."""
  check_transform("optimizer", optimizer, "optax.adamw(learning_rate)")
  if perturb is not None:
    check_transform("perturb", perturb, "perturbed_gradient(sam(rho)), or None")


def check_opt_state(opt_state: Any) -> None:
  """Raises a `ValueError` for optimizers that a step cannot run."""
  is_refused = lambda x: type(x) in _REFUSED  # noqa: E731
  for state in filter(
    is_refused, jax.tree.leaves(opt_state, is_leaf=is_refused)
  ):
    raise ValueError(f"optimizer {_REFUSED[type(state)]}")


def _check_arrays(params: PyTree) -> None:
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    name = f"params{jax.tree_util.keystr(path)}"
    if isinstance(leaf, jax.ShapeDtypeStruct):
      raise ValueError(
        f"{name} is a shape without values: pass arrays, or make the whole "
        "state abstract, jax.eval_shape(lambda p: create_train_state(p, ...), "
        "params)"
      )
    dtype = leaf.dtype if hasattr(leaf, "dtype") else np.result_type(leaf)
    if not jnp.issubdtype(dtype, jnp.inexact):
      raise ValueError(
        f"{name} is {dtype}, which has no gradient: put what is not trained "
        "into model_state"
      )


def _place(tree: PyTree, shardings: PyTree) -> PyTree:
  if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(tree)):
    return jax.lax.with_sharding_constraint(tree, shardings)
  return place(tree, shardings)


def _own(x: Any) -> Array:
  """A copy with a dtype that the step's output cannot change."""
  copy = jnp.array(x, copy=True)
  if jnp.issubdtype(copy.dtype, jax.dtypes.prng_key):
    return copy
  return jax.lax.convert_element_type(copy, copy.dtype)
