"""Perturbing some arrays and leaving the others exactly where they are."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from forgetsam._typing import PyTree

Mask = PyTree | Callable[[PyTree], PyTree]


def only(
  perturbation: optax.GradientTransformation, mask: Mask
) -> optax.GradientTransformationExtraArgs:
  r"""Restricts a perturbation to the arrays that a mask chooses.

  .. math:: \delta_i = P\bigl(g_{\text{chosen}}\bigr)_i
     \text{ for chosen } i, \qquad \delta_i = 0 \text{ elsewhere.}

  The perturbation sees the chosen arrays alone: its norm runs over them, and
  the functions among the extra arguments (`grad_fn`, `value_and_grad_fn`,
  `ascent_fn`) take and give trees of the chosen arrays, with the others at
  their current values. `optax.masked` would pass the other arrays' raw
  gradient on, and so move them by it.

  Args:
    perturbation: from ascent gradients to offsets.
    mask: a pytree of booleans with params' structure (or a prefix of it), or a
      function from params to such a pytree.

  Returns:
    A transformation from ascent gradients to offsets of the whole tree.

  Raises:
    ValueError: the mask holds something other than booleans, or does not fit.

  Example:
    >>> from forgetsam import sam
    >>> perturbation = only(sam(rho=1.0), {"kernel": True, "bias": False})
    >>> g = {"kernel": jnp.array([3.0]), "bias": jnp.array([4.0])}
    >>> perturbation.update(g, perturbation.init(g), g)[0]
    {'bias': Array([0.], dtype=float32), 'kernel': Array([1.], dtype=float32)}

  References:
    Mueller et al., *Normalization Layers Are All That Sharpness-Aware
    Minimization Needs*, NeurIPS 2023 (a use of it: norm layers only).
  """
  inner = optax.with_extra_args_support(perturbation)

  def init_fn(params: PyTree) -> Any:
    return inner.init(_choose(_resolve(mask, params), params))

  def update_fn(
    updates: PyTree, state: Any, params: PyTree | None = None, **extra: Any
  ) -> tuple[PyTree, Any]:
    chosen = _resolve(mask, updates if params is None else params)
    chosen_params = None if params is None else _choose(chosen, params)
    delta, state = inner.update(
      _choose(chosen, updates),
      state,
      chosen_params,
      **_restrict_functions(extra, chosen, params),
    )
    zeros = jax.tree.map(jnp.zeros_like, updates)
    return _merge(chosen, delta, zeros), state

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _resolve(mask: Mask, params: PyTree) -> PyTree:
  """The mask with one boolean for every array of params."""
  chosen = mask(params) if callable(mask) else mask
  for leaf in jax.tree.leaves(chosen):
    if not isinstance(leaf, (bool, np.bool_)):
      raise ValueError(
        f"mask has the leaf {leaf!r}: its leaves must be booleans, one for "
        "each array (or subtree) of params, known before tracing"
      )
  try:
    spread = jax.tree.broadcast(chosen, params, is_leaf=_is_masked)
  except ValueError:
    # Finer than params where an outer mask took a whole subtree out.
    spread = chosen
  try:
    return jax.tree.map(_take, params, spread, is_leaf=_is_masked)
  except ValueError as error:
    raise ValueError(
      f"mask does not fit params: its structure {jax.tree.structure(chosen)} "
      f"must be that of params, {jax.tree.structure(params)}, or a prefix of it"
    ) from error


def _is_masked(node: Any) -> bool:
  return isinstance(node, optax.MaskedNode)


def _take(node: Any, take: Any) -> bool:
  """What an outer mask left out stays out, whatever this one says."""
  if _is_masked(node):
    return False
  if not isinstance(take, (bool, np.bool_)):
    raise ValueError("the mask is finer than params")
  return bool(take)


def _choose(chosen: PyTree, tree: PyTree) -> PyTree:
  """The tree with a `MaskedNode`, which has no leaves, for what is left out."""
  return jax.tree.map(
    lambda take, x: x if take else optax.MaskedNode(), chosen, tree
  )


def _merge(chosen: PyTree, inside: PyTree, outside: PyTree) -> PyTree:
  return jax.tree.map(
    lambda take, x, other: x if take else other, chosen, inside, outside
  )


def _restrict_functions(
  extra: dict[str, Any], chosen: PyTree, params: PyTree
) -> dict[str, Any]:
  """Lets gradient functions be called with the chosen arrays alone."""
  restricted = dict(extra)
  for name in ("grad_fn", "ascent_fn"):
    if extra.get(name) is not None:

      def gradient(inside: PyTree, fn: Any = extra[name]) -> PyTree:
        return _choose(chosen, fn(_merge(chosen, inside, params)))

      restricted[name] = gradient
  if extra.get("value_and_grad_fn") is not None:

    def value_and_gradient(inside: PyTree) -> tuple[Any, PyTree]:
      merged = _merge(chosen, inside, params)
      value, grads = extra["value_and_grad_fn"](merged)
      return value, _choose(chosen, grads)

    restricted["value_and_grad_fn"] = value_and_gradient
  return restricted
