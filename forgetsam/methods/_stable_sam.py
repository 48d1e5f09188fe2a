"""StableSAM: the perturbed gradient at the length of the clean one."""

from forgetsam._arrays import cast_like, to_length, tree_norm
from forgetsam._typing import PyTree
from forgetsam.perturbations import Combine


def stable_sam() -> Combine:
  r"""StableSAM's combine rule: SAM's direction, plain training's length.

  .. math:: g = \frac{\lVert g_a \rVert}{\lVert g_p \rVert}\, g_p

  with :math:`g_p` the gradient at params + delta and :math:`g_a` the ascent
  gradient, which must be that of the *loss*: with another ascent, wrap it in
  `with_clean_gradient`. Norms run over the whole tree. Two passes.

  Example:
    >>> import jax.numpy as jnp
    >>> combine = stable_sam()
    >>> combine(jnp.array([1.0, 0.0]), None, jnp.array([3.0, 4.0]))
    Array([0.6, 0.8], dtype=float32)

  References:
    Tan et al., *Stabilizing Sharpness-Aware Minimization through a Simple
    Renormalization Strategy*, JMLR 2025.
  """

  def combine(ascent_grads: PyTree, delta: PyTree, grads: PyTree) -> PyTree:
    return cast_like(to_length(grads, tree_norm(ascent_grads)), grads)

  return combine
