"""Sparse SAM: offsets on a part of the weights alone."""

import optax

from forgetsam._checks import check_choice
from forgetsam._typing import Scalar
from forgetsam.methods._dynamic_mask import dynamic_mask
from forgetsam.methods._fisher_mask import fisher_mask
from forgetsam.perturbations import only, scale_to_radius


def sparse_sam(
  rho: optax.ScalarOrSchedule,
  mask: str | optax.GradientTransformation = "fisher",
  sparsity: Scalar = 0.5,
  every: int = 100,
  eps: Scalar = 0.0,
) -> optax.GradientTransformationExtraArgs:
  r"""Sparse SAM's perturbation: SAM's, on the entries that a mask chooses.

  .. math:: \delta = M_t \odot \rho_t\, g / \lVert g \rVert_2

  The norm is that of the whole gradient, so that the offset is shorter than
  rho; `only(sam(rho), mask)` would be as long as rho. It is
  `chain(scale_to_radius(rho), only(optax.identity(), mask))`.

  Args:
    rho: radius; a float, at least 0, or a schedule of the update count.
    mask: "fisher" (SSAM-F) or "dynamic" (SSAM-D), `fisher_mask` or
      `dynamic_mask` of what follows; or a changing mask as in `only`, such as
      one of these two with options of its own.
    sparsity: of a mask by name: the fraction of entries that stay.
    every: of a mask by name: updates from one mask to the next. The official
      code renews it once an epoch.
    eps: as in `scale_to_radius`; 1e-7 in the official code.

  Raises:
    ValueError: rho is negative or nan, or mask is no such name; what the mask
      refuses.

  Example:
    >>> import jax.numpy as jnp
    >>> perturbation = sparse_sam(rho=1.0, mask="dynamic", sparsity=0.75)
    >>> g = jnp.full(16, 3.0)
    >>> delta, _ = perturbation.update(g, perturbation.init(g), g)
    >>> int(jnp.sum(delta == 0.25)), int(jnp.sum(delta == 0))
    (4, 12)

  References:
    Mi et al., *Make Sharpness-Aware Minimization Stronger: A Sparsified
    Perturbation Approach*, NeurIPS 2022, algorithms 1 and 2.
  """
  if isinstance(mask, str):
    check_choice("mask", mask, ("fisher", "dynamic"))
    make = fisher_mask if mask == "fisher" else dynamic_mask
    mask = make(sparsity, every)
  return optax.chain(scale_to_radius(rho, eps), only(optax.identity(), mask))
