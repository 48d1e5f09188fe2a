"""Every perturbation, and every way to a perturbed gradient, by name."""

import jax
import jax.numpy as jnp
import optax
import pytest

import forgetsam as fs


def matrices(params):
  return jax.tree.map(lambda x: x.ndim > 1, params)


# name -> from rho to a perturbation. Where more is needed than gradients and
# params, they take what they are given, or `GRADIENTS` has them.
PERTURBATIONS = {
  "sam": fs.sam,
  "asam": lambda rho: fs.asam(rho, eta=0.01),
  "random_perturbation": lambda rho: fs.random_perturbation(rho, seed=0),
  "scale_to_radius": fs.scale_to_radius,
  "multi_step": lambda rho: fs.multi_step(fs.sam(rho), steps=1),
  "only": lambda rho: fs.only(fs.sam(rho), {"w": True, "b": True}),
  "friendly_sam": fs.friendly_sam,
  "every_k": lambda rho: fs.every_k(fs.sam(rho), k=2),
  "active_between": lambda rho: fs.active_between(fs.sam(rho), start=0),
  # Pieces without a radius of their own get one, to be perturbations.
  "scale_by_magnitude": lambda rho: optax.chain(
    fs.scale_by_magnitude(0.01), fs.scale_to_radius(rho)
  ),
  "gaussian_direction": lambda rho: optax.chain(
    fs.gaussian_direction(0), fs.scale_to_radius(rho)
  ),
}
# name -> from rho to a transform from ascent to descent gradients.
GRADIENTS = {
  name: lambda rho, factory=factory: fs.perturbed_gradient(factory(rho))
  for name, factory in PERTURBATIONS.items()
} | {
  "multi_step": lambda rho: fs.perturbed_gradient(
    fs.multi_step(fs.sam(rho), steps=2)
  ),
  "active_between": lambda rho: fs.perturbed_gradient(
    fs.active_between(fs.sam(rho), start=1)
  ),
  "momentum_ascent": lambda rho: fs.perturbed_gradient(fs.momentum_ascent(rho)),
  "look_sam": lambda rho: fs.look_sam(fs.sam(rho), 2, 0.5),
  "surrogate_gap": lambda rho: fs.perturbed_gradient(
    fs.sam(rho), fs.surrogate_gap(0.3)
  ),
  "surrogate_gap_normalized": lambda rho: fs.perturbed_gradient(
    fs.sam(rho), fs.surrogate_gap(0.3, normalized=True)
  ),
  "weighted": lambda rho: fs.perturbed_gradient(fs.sam(rho), fs.weighted(0.7)),
  "with_clean_gradient": lambda rho: fs.perturbed_gradient(
    fs.sam(rho), fs.with_clean_gradient(fs.weighted(0.7))
  ),
}

# Methods of which every sweep has all rows in the long tests alone: they are
# compositions, and have traces.
PERTURBING_METHODS = {
  "layer_sam": fs.layer_sam,
  "moving_average": lambda rho: optax.chain(
    fs.moving_average(0.8), fs.scale_to_radius(rho, eps=1e-7)
  ),
  "asam_layerwise": lambda rho: fs.asam(
    rho, 0.01, layerwise=True, mask=matrices
  ),
  "asam_linf": lambda rho: fs.asam(rho, 0.01, norm="linf"),
  "vasso": fs.vasso,
  "fisher_sam": fs.fisher_sam,
  "centralize": lambda rho: optax.chain(
    fs.centralize(), fs.scale_to_radius(rho)
  ),
  "dynamic_mask": lambda rho: fs.sparse_sam(
    rho, fs.dynamic_mask(0.5, every=1, drop="weight")
  ),
  "fisher_mask": lambda rho: fs.sparse_sam(
    rho,
    fs.fisher_mask(
      0.5, every=2, fisher=lambda p, **extra: jax.tree.map(jnp.square, p)
    ),
  ),
  "gc_sam": fs.gc_sam,
  "le_sam": lambda rho: fs.le_sam(rho, sigma=0.01),
  "sparse_sam": lambda rho: fs.sparse_sam(rho, "dynamic", every=2),
  "unified_sam": lambda rho: fs.unified_sam(rho, lam=0.5),
  "z_score_filter": lambda rho: optax.chain(
    fs.z_score_filter(0.5), fs.scale_to_radius(rho)
  ),
  "zsharp": lambda rho: fs.zsharp(rho, 0.5, per_array=True),
}
GRADIENT_METHODS = {
  "eigen_sam": lambda rho: fs.perturbed_gradient(fs.eigen_sam(rho, 0.2, 1, 2)),
  "gam": lambda rho: fs.gam(fs.sam(rho), 0.1),
  "look_layer_sam": lambda rho: fs.look_layer_sam(rho, 2, 0.5),
  "polyak_step": lambda rho: fs.perturbed_gradient(
    fs.sam(rho), fs.polyak_step()
  ),
  "stable_sam": lambda rho: fs.perturbed_gradient(fs.sam(rho), fs.stable_sam()),
  "xsam": lambda rho: fs.perturbed_gradient(fs.sam(rho), fs.xsam(0.1)),
  **dict.fromkeys(
    ("lookbehind", "slow_weights"),
    lambda rho: optax.chain(
      fs.lookbehind(fs.sam(rho), 2), fs.slow_weights(optax.identity())
    ),
  ),
  "surrogate_gap_clean": lambda rho: fs.perturbed_gradient(
    fs.sam(rho), fs.surrogate_gap(0.3, minimize="clean")
  ),
  "gnp": lambda rho: fs.perturbed_gradient(fs.sam(rho), fs.gnp(0.7)),
  "gnp_normalized": lambda rho: fs.perturbed_gradient(
    fs.sam(rho), fs.gnp(0.7, normalized=True)
  ),
  "look_sam_per_array": lambda rho: fs.look_sam(
    fs.sam(rho), 2, 0.5, per_array=True
  ),
  "random_mask": lambda rho: fs.perturbed_gradient(
    fs.only(fs.sam(rho), fs.random_mask(0.5, seed=0))
  ),
  "sharpest_examples": lambda rho: fs.perturbed_gradient(
    fs.sam(rho), fs.sharpest_examples(0.5)
  ),
  "esam": lambda rho: fs.esam(rho, seed=0),
  "esam_official": lambda rho: fs.esam(rho, seed=0, official=True),
  "bsam": lambda rho: fs.bsam(rho, seed=0, num_examples=100),
  "cr_sam": lambda rho: fs.cr_sam(fs.sam(rho)),
  "sampa": lambda rho: fs.sampa(fs.sam(rho), learning_rate=0.1),
}
# They refuse complex numbers, of which a part could count alone or with the
# other.
OF_REAL = {
  *("asam", "asam_linf", "scale_by_magnitude", "bsam"),
  *("z_score_filter", "zsharp"),
  *("dynamic_mask", "fisher_mask", "sparse_sam"),
}

PERTURBATIONS |= PERTURBING_METHODS
GRADIENTS |= {
  name: lambda rho, factory=factory: fs.perturbed_gradient(factory(rho))
  for name, factory in PERTURBING_METHODS.items()
} | GRADIENT_METHODS


def names(table):
  """The names in a table, to parametrise a sweep with."""
  long = PERTURBING_METHODS | GRADIENT_METHODS
  return [
    pytest.param(name, marks=pytest.mark.long) if name in long else name
    for name in table
  ]


OPTIMIZER = optax.chain(
  fs.sgdw(0.1, weight_decay=0.1), fs.shrink_and_perturb(0.1)
)


def init(transform, params):
  return transform.init(params), OPTIMIZER.init(params)


def step(transform, loss, params, states):
  """A step of one's own loop, with all extra arguments.

  The ascent is on the loss and a quarter of the weights' square.
  """

  def value_and_grad_fn(p):
    value, grads = jax.value_and_grad(loss)(p)
    return value, jax.tree.map(jnp.conj, grads)

  def grad_fn(p):
    return value_and_grad_fn(p)[1]

  def ascent_fn(p):
    return jax.tree.map(lambda g, w: g + 0.5 * w, grad_fn(p), p)

  def losses_fn(p):
    return loss(p) * jnp.arange(1, 7, dtype=jnp.float32)

  state, opt_state = states
  grads, state = transform.update(
    ascent_fn(params),
    state,
    params,
    grad_fn=grad_fn,
    value_and_grad_fn=value_and_grad_fn,
    ascent_fn=ascent_fn,
    losses_fn=losses_fn,
    previous_value_and_grad_fn=value_and_grad_fn,
    opt_state=opt_state,
  )
  updates, opt_state = OPTIMIZER.update(grads, opt_state, params)
  return optax.apply_updates(params, updates), (state, opt_state)
