"""Perturbing some arrays alone, such as those of normalisation layers."""

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
  gradient functions among the extra arguments take and give trees of them.
  `optax.masked` would move the other arrays by their raw gradients.

  Args:
    perturbation: from ascent gradients to offsets.
    mask: a pytree of booleans with params' structure (or a prefix of it), or a
      function from params to such a pytree.

  Raises:
    ValueError: the mask holds something other than booleans, or does not fit.

  Example:
    >>> from forgetsam import sam
    >>> perturbation = only(sam(rho=1.0), {"kernel": True, "bias": False})
    >>> g = {"kernel": jnp.array([3.0]), "bias": jnp.array([4.0])}
    >>> perturbation.update(g, perturbation.init(g), g)[0]
    {'bias': Array([0.], dtype=float32), 'kernel': Array([1.], dtype=float32)}

  References:
    Mueller et al., *Normalization Layers Are All That SAM Needs*.
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
    spread = jax.tree.broadcast(chosen, params, is_leaf=is_masked)
  except ValueError:
    # Finer than params where an outer mask took a whole subtree out.
    spread = chosen
  try:
    return jax.tree.map(_take, params, spread, is_leaf=is_masked)
  except ValueError as error:
    raise ValueError(
      f"mask does not fit params: its structure {jax.tree.structure(chosen)} "
      f"must be that of params, {jax.tree.structure(params)}, or a prefix of it"
    ) from error


def is_masked(node: Any) -> bool:
  return isinstance(node, optax.MaskedNode)


def _take(node: Any, take: Any) -> bool:
  """`take`, except where an outer mask left the array out."""
  if is_masked(node):
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

  def restrict(name: str) -> Any:
    def restricted(inside: PyTree) -> Any:
      result = extra[name](_merge(chosen, inside, params))
      if name == "value_and_grad_fn":
        return result[0], _choose(chosen, result[1])
      return _choose(chosen, result)

    return restricted

  names = ("grad_fn", "ascent_fn", "value_and_grad_fn")
  given = [name for name in names if extra.get(name) is not None]
  return extra | {name: restrict(name) for name in given}
