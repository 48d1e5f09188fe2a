"""Perturbing some arrays alone, such as those of normalisation layers."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from forgetsam._arrays import is_masked
from forgetsam._checks import check_transform
from forgetsam._combination import zeros_like
from forgetsam._typing import PyTree

Mask: TypeAlias = (
  PyTree | Callable[[PyTree], PyTree] | optax.GradientTransformation
)


class ChangingMaskState(NamedTuple):
  """State of `only` with a mask that changes."""

  mask: Any
  perturbation: Any


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
      function from params to such a pytree. For a mask that changes, an optax
      transform: its update takes the ascent gradient and all extra arguments,
      and returns boolean *arrays*, for whole arrays of params or elementwise.
      Then the perturbation sees zeros in place of the others; what draws noise,
      or goes along the momentum, stands before it, as in
      `chain(gaussian_direction(0), only(scale_to_radius(rho), mask))`.

  Raises:
    ValueError: the mask holds something other than booleans, or does not fit.

  Example:
    >>> from forgetsam import sam
    >>> perturbation = only(sam(rho=1.0), {"kernel": True, "bias": False})
    >>> g = {"kernel": jnp.array([3.0]), "bias": jnp.array([4.0])}
    >>> perturbation.update(g, perturbation.init(g), g)[0]
    {'bias': Array([0.], dtype=float32), 'kernel': Array([1.], dtype=float32)}

    Elementwise, another half in every update:

    >>> def update(grads, count, params=None, **extra):
    ...   return jnp.arange(4) % 2 == count % 2, count + 1
    >>> halves = optax.GradientTransformationExtraArgs(lambda w: 0, update)
    >>> perturbation = only(sam(rho=1.0), halves)
    >>> g = jnp.array([3.0, 4.0, 4.0, 3.0])
    >>> first, state = perturbation.update(g, perturbation.init(g))
    >>> second, state = perturbation.update(g, state)
    >>> print(first, second)
    [0.6 0.  0.8 0. ] [0.  0.8 0.  0.6]

  References:
    Mueller et al., *Normalization Layers Are All That SAM Needs*.
  """
  check_transform("perturbation", perturbation, "sam(rho)")
  inner = optax.with_extra_args_support(perturbation)
  if isinstance(mask, optax.GradientTransformation):
    return _changing(inner, optax.with_extra_args_support(mask))

  def init_fn(params: PyTree) -> Any:
    return inner.init(_choose(resolve_mask(mask, params), params))

  def update_fn(
    updates: PyTree, state: Any, params: PyTree | None = None, **extra: Any
  ) -> tuple[PyTree, Any]:
    chosen = resolve_mask(mask, updates if params is None else params)
    chosen_params = None if params is None else _choose(chosen, params)
    delta, state = inner.update(
      _choose(chosen, updates),
      state,
      chosen_params,
      **_restrict_functions(
        extra,
        lambda tree: _choose(chosen, tree),
        lambda inside: _merge(chosen, inside, params),
      ),
    )
    zeros = jax.tree.map(zeros_like, updates)
    return _merge(chosen, delta, zeros), state

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def resolve_mask(mask: Mask, params: PyTree) -> PyTree:
  """A mask that does not change, a boolean for every array of params."""
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
    raise _misfit(chosen, params) from error


def _misfit(chosen: PyTree, params: PyTree) -> ValueError:
  return ValueError(
    f"mask does not fit params: its structure {jax.tree.structure(chosen)} "
    f"must be that of params, {jax.tree.structure(params)}, or a prefix of it"
  )


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
  extra: dict[str, Any],
  choose: Callable[[PyTree], PyTree],
  whole: Callable[[PyTree], PyTree],
) -> dict[str, Any]:
  """Lets gradient functions take and give what a perturbation sees of trees."""

  def restrict(name: str) -> Any:
    def restricted(inside: PyTree) -> Any:
      result = extra[name](whole(inside))
      if name == "losses_fn":
        return result
      if name == "value_and_grad_fn":
        return result[0], choose(result[1])
      return choose(result)

    return restricted

  names = ("grad_fn", "ascent_fn", "value_and_grad_fn", "losses_fn")
  given = [name for name in names if extra.get(name) is not None]
  return extra | {name: restrict(name) for name in given}


def _changing(
  inner: optax.GradientTransformationExtraArgs,
  masks: optax.GradientTransformationExtraArgs,
) -> optax.GradientTransformationExtraArgs:
  """`only` with boolean arrays: zeros, not gaps, for what they leave out."""

  def init_fn(params: PyTree) -> ChangingMaskState:
    return ChangingMaskState(masks.init(params), inner.init(params))

  def update_fn(
    updates: PyTree,
    state: ChangingMaskState,
    params: PyTree | None = None,
    **extra: Any,
  ) -> tuple[PyTree, ChangingMaskState]:
    chosen, mask_state = masks.update(updates, state.mask, params, **extra)
    chosen = _spread(chosen, updates)

    def choose(tree: PyTree) -> PyTree:
      return jax.tree.map(
        lambda x, take: jnp.where(take, x, jnp.zeros_like(x)), tree, chosen
      )

    functions = _restrict_functions(extra, choose, lambda point: point)
    delta, inner_state = inner.update(
      choose(updates), state.perturbation, params, **functions
    )
    return choose(delta), ChangingMaskState(mask_state, inner_state)

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _spread(chosen: PyTree, params: PyTree) -> PyTree:
  """A changing mask with one boolean array for every array of params."""
  for leaf in jax.tree.leaves(chosen):
    if jnp.result_type(leaf) != jnp.bool_:
      raise ValueError(
        f"mask has a leaf of {jnp.result_type(leaf)}: its update must return "
        "booleans, as `array > 0` gives them"
      )
  try:
    spread = jax.tree.broadcast(chosen, params)
    jax.tree.map(lambda m, x: jnp.broadcast_to(m, x.shape), spread, params)
  except ValueError as error:
    raise _misfit(chosen, params) from error
  return spread
