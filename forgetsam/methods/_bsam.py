"""bSAM: SAM whose radius is each weight's own, with its variance."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from forgetsam._arrays import add_delta, at_least_float32, cast_like, wide_zeros
from forgetsam._checks import (
  check_number,
  check_real,
  check_rho,
  check_transform,
  is_number,
)
from forgetsam._passes import value_and_grad
from forgetsam._schedules import value_at
from forgetsam._typing import GradFn, PyTree, Scalar, ValueAndGradFn
from forgetsam.perturbations import (
  PerturbedGradientState,
  gaussian_direction,
  perturbed_gradient,
)


class BSAMState(NamedTuple):
  """Memory of `bsam`, in float32 or wider.

  Attributes:
    noise: the state of what draws the noise.
    count: of updates.
    mean: :math:`m`, the moving average of gradients.
    precision: :math:`s`; the weights' variance is :math:`1 / (N s)`.
  """

  noise: Any
  count: Int[Array, ""]  # type: ignore[assignment]  # mypy: tuple.count
  mean: PyTree
  precision: PyTree


def bsam(
  rho: optax.ScalarOrSchedule,
  seed: int | Array,
  num_examples: Scalar,
  beta1: Scalar = 0.9,
  beta2: Scalar = 0.999,
  weight_decay: Scalar = 0.0,
  damping: Scalar = 0.1,
  precision: Scalar = 1.0,
  noise: str | optax.GradientTransformation = "drawn",
) -> optax.GradientTransformationExtraArgs:
  r"""Bayesian SAM: a direction of descent with the weights' own variances.

  .. math:: g = \nabla L\bigl(w + \xi / \sqrt{N s}\bigr), \qquad
     p = \nabla L(w + \rho_t\, g / s), \qquad
     m \leftarrow \beta_1 m + (1 - \beta_1)(p + \lambda w), \qquad
     \text{result} = m / s

  and then :math:`s \leftarrow \beta_2 s + (1 - \beta_2)(\sqrt s \odot
  \lvert g \rvert + \gamma + \lambda)`, elementwise, with :math:`\xi` standard
  normal. It takes the place of `perturbed_gradient`, with averages of its own:
  the optimizer after it is `optax.sgd(learning_rate)`, without momentum or
  decay. Both averages are linear in the gradients, so that their means over
  micro-batches and devices are the official code's, m of the paper.

  With another ascent than the loss, the offset goes along that one's gradient
  at the noisy weights, and a pass more is taken for the variance.

  Args:
    rho: multiple of :math:`g / s`, not normalised; a float, at least 0, or a
      schedule of the update count.
    seed: of the noise, as in `gaussian_direction`.
    num_examples: N, of the training set.
    beta1: :math:`\beta_1` in [0, 1), of the gradient's average.
    beta2: :math:`\beta_2` in [0, 1), of the precision's average.
    weight_decay: :math:`\lambda` (the paper's delta), the prior's precision.
    damping: :math:`\gamma`, added to the precision.
    precision: s of the first step.
    noise: "drawn" or "table", as in `gaussian_direction`, or an optax transform
      whose updates are :math:`\xi`, in place of seed.

  Returns:
    A transformation with the arguments of `perturbed_gradient` and its state
    around `BSAMState`.

  Raises:
    ValueError: a number is out of range; `update` without params or a gradient
      function; complex params.

  Example:
    >>> transform = bsam(0.1, seed=0, num_examples=1e12, beta1=0.0)
    >>> w = jnp.array([2.0])
    >>> grad_fn = jax.grad(lambda w: 0.5 * jnp.sum(w**2))
    >>> g, state = transform.update(w, transform.init(w), w, grad_fn=grad_fn)
    >>> print(g.round(3), state.perturbation.precision.round(4))
    [2.2] [1.0011]

  References:
    Möllenhoff and Khan, *SAM as an Optimal Relaxation of Bayes*, ICLR 2023,
    algorithm 1 (bSAM).
  """
  check_rho("rho", rho)
  for name, value in (("num_examples", num_examples), ("precision", precision)):
    check_number(name, value, low=1e-30)
  for name, value in (("beta1", beta1), ("beta2", beta2)):
    check_number(name, value, low=0, high=1, exclude_high=True)
  check_number("weight_decay", weight_decay, low=0)
  check_number("damping", damping, low=0)
  if is_number(num_examples):
    num_examples = float(num_examples)  # an integer may be beyond JAX's
  if isinstance(noise, str):
    noise = gaussian_direction(seed, noise)
  check_transform("noise", noise, "gaussian_direction(0)")
  draw = optax.with_extra_args_support(noise)
  start = perturbed_gradient(optax.identity()).init

  def init_fn(params: PyTree) -> PerturbedGradientState:
    check_real("the precision of bsam", params)
    zeros = wide_zeros(params)
    memory = BSAMState(
      draw.init(params),
      jnp.zeros((), jnp.int32),
      zeros,
      jax.tree.map(lambda z: jnp.full_like(z, precision), zeros),
    )
    return start(params)._replace(perturbation=memory)

  def update_fn(
    ascent_grads: PyTree,
    state: PerturbedGradientState,
    params: PyTree | None = None,
    *,
    grad_fn: GradFn | None = None,
    value_and_grad_fn: ValueAndGradFn | None = None,
    ascent_fn: GradFn | None = None,
    **extra: Any,
  ) -> tuple[PyTree, PerturbedGradientState]:
    loss_and_grads = value_and_grad("bsam", params, grad_fn, value_and_grad_fn)
    memory = state.perturbation
    m, s = memory.mean, memory.precision
    xi, noise_state = draw.update(s, memory.noise, params, **extra)
    spread = jax.tree.map(
      lambda x, v: (x / jnp.sqrt(num_examples * v)).astype(v.dtype), xi, s
    )
    noisy = add_delta(params, spread)
    g = jax.tree.map(at_least_float32, loss_and_grads(noisy)[1])
    along = g
    if ascent_fn is not None and ascent_fn is not grad_fn:
      along = ascent_fn(noisy)
    radius = value_at(rho, memory.count)

    def scale(a: Array, v: Array) -> Array:
      return jnp.asarray(radius).astype(v.dtype) * at_least_float32(a) / v

    offset = optax.stateless(lambda a, _: jax.tree.map(scale, a, s))
    p, new_state = perturbed_gradient(offset).update(
      along,
      state._replace(perturbation=optax.EmptyState()),
      params,
      value_and_grad_fn=loss_and_grads,
    )

    def average(m: Array, p: Array, w: Array) -> Array:
      p, w = at_least_float32(p), at_least_float32(w)
      return (beta1 * m + (1 - beta1) * (p + weight_decay * w)).astype(m.dtype)

    def sharpen(v: Array, g: Array) -> Array:
      rise = jnp.sqrt(v) * jnp.abs(g) + damping + weight_decay
      return (beta2 * v + (1 - beta2) * rise).astype(v.dtype)

    mean = jax.tree.map(average, m, p, params)
    memory = BSAMState(
      noise_state,
      optax.safe_increment(memory.count),
      mean,
      jax.tree.map(sharpen, s, g),
    )
    result = cast_like(jax.tree.map(jnp.divide, mean, s), params)
    return result, new_state._replace(perturbation=memory)

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)
