"""Optimizers of the paper and averages of the weights, beside optax's own."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from forgetsam._arrays import at_least_float32, is_masked
from forgetsam._checks import check_number, check_params
from forgetsam._schedules import value_at
from forgetsam._typing import PyTree, Scalar


def sgdw(
  learning_rate: optax.ScalarOrSchedule,
  momentum: Scalar = 0.9,
  weight_decay: Scalar = 0.0,
  mask: PyTree | Callable[[PyTree], PyTree] | None = None,
) -> optax.GradientTransformationExtraArgs:
  r"""Stochastic gradient descent with momentum and decoupled weight decay.

  .. math:: v_t = \mu v_{t-1} + g_t, \qquad
     w_t = w_{t-1} - \eta_t (v_t + \lambda w_{t-1})

  Args:
    learning_rate: :math:`\eta`, a float or a schedule of the update count.
    momentum: :math:`\mu` in [0, 1).
    weight_decay: :math:`\lambda`, at least 0.
    mask: which arrays decay: a pytree of booleans (or a prefix of one), or a
      function from params to it; `None` decays all.

  Raises:
    ValueError: momentum is outside [0, 1), or learning_rate or weight_decay is
      negative.

  Example:
    >>> optimizer = sgdw(0.5, momentum=0.0, weight_decay=0.1)
    >>> params = {"w": jnp.array(1.0)}
    >>> grads = {"w": jnp.array(2.0)}
    >>> updates, _ = optimizer.update(grads, optimizer.init(params), params)
    >>> round(float(updates["w"]), 6)
    -1.05

  References:
    Loshchilov and Hutter, *Decoupled Weight Decay Regularization*, ICLR 2019,
    algorithm 1.
  """
  if not callable(learning_rate):
    check_number("learning_rate", learning_rate, low=0)
  check_number("momentum", momentum, low=0, high=1, exclude_high=True)
  check_number("weight_decay", weight_decay, low=0)
  return optax.chain(
    optax.trace(decay=momentum),
    optax.add_decayed_weights(weight_decay, mask),
    optax.scale_by_learning_rate(learning_rate),
  )


class ShrinkAndPerturbState(NamedTuple):
  """State of `shrink_and_perturb`."""

  count: Int[Array, ""]  # type: ignore[assignment]  # mypy: tuple.count
  initial_params: PyTree


def shrink_and_perturb(
  factor: optax.ScalarOrSchedule,
) -> optax.GradientTransformationExtraArgs:
  r"""Pulls the weights a little towards where training started.

  .. math:: w_t = f_t w_0 + (1 - f_t) (w_{t-1} + u_t)

  with :math:`u_t` the update that reaches it: it stands *last* in a chain. It
  shrinks parameters only (the official code also BatchNorm's statistics), and
  its state holds a copy of the first ones.

  Args:
    factor: f in [0, 1], a float or a schedule of the number of updates
      completed, this one included.

  Raises:
    ValueError: factor is outside [0, 1]; `update` without params.

  Example:
    >>> transform = shrink_and_perturb(0.25)
    >>> state = transform.init(jnp.array(1.0))
    >>> transform.update(jnp.array(2.0), state, jnp.array(3.0))[0]  # 5 -> 4
    Array(1., dtype=float32)

  References:
    Ash and Adams, *On Warm-Starting Neural Network Training*, NeurIPS 2020.
  """
  if not callable(factor):
    check_number("factor", factor, low=0, high=1)

  def init_fn(params: PyTree) -> ShrinkAndPerturbState:
    initial = jax.tree.map(_copy, params)
    return ShrinkAndPerturbState(jnp.zeros((), jnp.int32), initial)

  def update_fn(
    updates: PyTree,
    state: ShrinkAndPerturbState,
    params: PyTree | None = None,
    **extra: object,
  ) -> tuple[PyTree, ShrinkAndPerturbState]:
    check_params("shrink_and_perturb", params)
    count = optax.safe_increment(state.count)
    f = value_at(factor, count)

    def pull(u: Array, w: Array, w_0: Array) -> Array:
      wide = at_least_float32(u), at_least_float32(w), at_least_float32(w_0)
      return ((1 - f) * wide[0] + f * (wide[2] - wide[1])).astype(u.dtype)

    pulled = jax.tree.map(pull, updates, params, state.initial_params)
    return pulled, ShrinkAndPerturbState(count, state.initial_params)

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


class ParamsEmaState(NamedTuple):
  """State of `params_ema`."""

  count: Int[Array, ""]  # type: ignore[assignment]  # mypy: tuple.count
  average: PyTree


def params_ema(decay: Scalar) -> optax.GradientTransformationExtraArgs:
  r"""Keeps an exponential moving average of the weights; it changes no update.

  .. math:: \bar w_t = \frac{1 - \beta}{1 - \beta^t}
     \sum_{i = 1}^t \beta^{t - i} w_i

  with :math:`w_i` the weights after update i: the average is debiased, the
  first weights are not in it, and :math:`\bar w_1 = w_1`. It stands *last* in a
  chain, and its state holds the average, in at least float32.

  Args:
    decay: :math:`\beta` in [0, 1): the average is over about
      :math:`1 / (1 - \beta)` updates.

  Raises:
    ValueError: decay is outside [0, 1); `update` without params.

  Example:
    >>> optimizer = optax.chain(optax.sgd(1.0), params_ema(0.5))
    >>> w = jnp.array(0.0)
    >>> state = optimizer.init(w)
    >>> for _ in range(2):  # w = 3, then 6
    ...   updates, state = optimizer.update(jnp.array(-3.0), state, w)
    ...   w = optax.apply_updates(w, updates)
    >>> averaged_params(w, state)  # (0.5 * 3 + 6) / 1.5
    Array(5., dtype=float32)

  References:
    Polyak and Juditsky, *Acceleration of Stochastic Approximation by
    Averaging*, 1992; debiased as in Kingma and Ba, *Adam*, 2015, section 3.
  """
  check_number("decay", decay, low=0, high=1, exclude_high=True)

  def init_fn(params: PyTree) -> ParamsEmaState:
    average = jax.tree.map(lambda w: at_least_float32(_copy(w)), params)
    return ParamsEmaState(jnp.zeros((), jnp.int32), average)

  def update_fn(
    updates: PyTree,
    state: ParamsEmaState,
    params: PyTree | None = None,
    **extra: object,
  ) -> tuple[PyTree, ParamsEmaState]:
    check_params("params_ema", params)
    count = optax.safe_increment(state.count)
    beta = jnp.asarray(decay)
    # (1 - beta) / (1 - beta ** count), which a power would round near 1.
    share = (1 - beta) / -jnp.expm1(count.astype(beta.dtype) * jnp.log(beta))

    def move(average: Array, w: Array) -> Array:
      step = share.astype(jnp.finfo(average.dtype).dtype)
      return average + step * (at_least_float32(w) - average)

    moved = optax.apply_updates(params, updates)
    average = jax.tree.map(move, state.average, moved)
    return updates, ParamsEmaState(count, average)

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def averaged_params(params: PyTree, opt_state: Any) -> PyTree | None:
  """The average that `params_ema` keeps, as params of the model.

  Args:
    params: the parameters; where the average lacks some, as under
      `optax.partition`, theirs are taken.
    opt_state: the state of a chain with `params_ema`, at any depth.

  Returns:
    A tree like params, of their dtypes; None where nothing is averaged.

  Raises:
    ValueError: there are several averages.
  """
  found = [x for x in _leaves_at_ema(opt_state) if _is_ema(x)]
  if len(found) > 1:
    raise ValueError(
      f"opt_state has {len(found)} averages of the weights: keep one params_ema"
    )
  if not found:
    return None

  def take(average: Any, w: PyTree) -> PyTree:
    return w if is_masked(average) else average.astype(w.dtype)

  return jax.tree.map(take, found[0].average, params, is_leaf=is_masked)


def _is_ema(x: Any) -> bool:
  return isinstance(x, ParamsEmaState)


def _leaves_at_ema(opt_state: Any) -> list[Any]:
  return jax.tree.leaves(opt_state, is_leaf=_is_ema)


def _copy(w: Any) -> Array:
  """A copy, as a step may be given w's own buffer; zeros for a bare shape."""
  if isinstance(w, jax.ShapeDtypeStruct):
    return jnp.zeros_like(w)
  return jnp.array(w, copy=True)
