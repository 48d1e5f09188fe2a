"""ESAM: perturbing a part of the weights, descending a part of the examples."""

import optax
from jaxtyping import Array

from forgetsam._checks import check_number, check_rho, is_number
from forgetsam._typing import Scalar
from forgetsam.perturbations import (
  only,
  perturbed_gradient,
  random_mask,
  scale_to_radius,
  sharpest_examples,
)


def esam(
  rho: optax.ScalarOrSchedule,
  seed: int | Array,
  beta: Scalar = 0.6,
  gamma: Scalar = 0.5,
  official: bool = False,
  mask: optax.GradientTransformation | None = None,
) -> optax.GradientTransformationExtraArgs:
  r"""Efficient SAM, in place of `perturbed_gradient`.

  .. math:: \delta = M \odot \frac{\rho_t}{\beta} \frac{g}{\lVert g \rVert_2},
     \quad M_i \sim \text{Bernoulli}(\beta), \qquad
     \text{result} = \frac1k \sum_{i \in S} \nabla \ell_i(w + \delta)

  with S the k = gamma m examples of a micro-batch whose losses delta raises
  most: `perturbed_gradient` of `sam(rho / beta)` under a `random_mask`, with
  the combine rule `sharpest_examples`, which says why the smaller S saves no
  time here.

  Args:
    rho: radius; a float, at least 0, or a schedule of the update count.
    seed: of the masks, as in `random_mask`.
    beta: the probability of a weight's being perturbed, in (0, 1].
    gamma: the share of examples that are descended on, in (0, 1].
    official: whether as in the authors' code, where whole arrays are kept or
      dropped, the norm runs over the kept ones, has 1e-7 added, and S lacks the
      k-th example, or is all from a gamma of 0.99.
    mask: what draws M in place of `random_mask(beta, seed)`: a changing mask of
      `only`.

  Returns:
    A transformation with the arguments and state of `perturbed_gradient`; it
    needs `losses_fn` among them, params -> the loss of each example.

  Raises:
    ValueError: rho is negative or nan, beta or gamma is outside (0, 1], or seed
      is no integer; `update` without losses_fn.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> x = jnp.array([1.0, 3.0])
    >>> losses_fn = lambda w: 0.5 * (x * w) ** 2
    >>> grad_fn = jax.grad(lambda w: jnp.mean(losses_fn(w)))
    >>> transform, w = esam(rho=1.0, seed=0, beta=1.0), jnp.array(1.0)
    >>> grads, _ = transform.update(
    ...   grad_fn(w), transform.init(w), w, grad_fn=grad_fn, losses_fn=losses_fn
    ... )
    >>> print(grads)  # of the second example, at w = 2
    18.0

  References:
    Du et al., *Efficient Sharpness-aware Minimization for Improved Training of
    Neural Networks*, ICLR 2022, algorithm 1.
  """
  check_rho("rho", rho)
  check_number("beta", beta, low=0, high=1)
  if is_number(beta) and beta == 0:
    raise ValueError("beta=0 must be above 0: no weight would be perturbed")
  if official and is_number(gamma) and gamma >= 0.99:
    gamma = 1.0
  check_number("gamma", gamma, low=0, high=1)
  if not is_number(gamma) or gamma == 0:
    raise ValueError(f"gamma={gamma!r} must be a number in (0, 1]")
  if mask is None:
    mask = random_mask(beta, seed, of="arrays" if official else "entries")
  radius = (lambda t: rho(t) / beta) if callable(rho) else rho / beta
  if official:
    masked = only(scale_to_radius(radius, eps=1e-7), mask)
  else:
    masked = optax.chain(scale_to_radius(radius), only(optax.identity(), mask))
  return perturbed_gradient(masked, sharpest_examples(gamma, strict=official))
